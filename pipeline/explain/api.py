"""Explains and evaluates one batch of images, for notebooks and scripts that need no run: `explain`, `evaluate`.

Legend: B images (or rows, where an image has several targets), T targets of one image, C colours, (H, W) pixels,
(u, v) grid of a map, N classes, S points of a curve, R rows with finite pixels and logits.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.cams import CamMethod, build_methods
from pipeline.explain import given_classes
from pipeline.explain.arguments import check_inputs, check_normalisation
from pipeline.explain.explanations import Explanations, evidence_for, explain_evidence, measure, observe
from pipeline.explain.given_boxes import checked_boxes
from pipeline.explain.given_truth import checked_masks, checked_parts
from pipeline.explain.inputs import Images, Inputs, Transform, normalised
from pipeline.explain.requirements import (
    check_adapters,
    check_attention,
    check_confidences,
    check_redrawn,
    check_stages,
    check_stored,
)
from pipeline.explain.waiting import Reporting
from pipeline.maps.heatmaps import is_degenerate
from pipeline.metrics import Metric, Parts, Truth, build_metrics
from pipeline.model.arithmetic import multiplying
from pipeline.model.batching import DEFAULT_BATCH
from pipeline.model.evidence import Evidence
from pipeline.model.kinds import exceptions_told
from pipeline.model.layout_choice import Layout
from pipeline.model.outputs import OutputKey, OutputKind
from pipeline.model.probe import Probe
from pipeline.model.remembered import Wanted, recalled, remember
from pipeline.model.tasks import Tasks, task_of
from pipeline.model.trial import model_of_trials, tried_outputs
from pipeline.model.wrappers import unwrapped
from pipeline.settings.precision import Precision
from pipeline.settings.registry import Spec


def explain(
    model: nn.Module,
    images: Images,
    *,
    methods: Iterable[Spec] = ("gradcam",),
    layer: str | nn.Module = "auto",
    targets: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None,
    precision: Precision = "fp32",
    batch: int = DEFAULT_BATCH,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    stages: Sequence[str] | None = None,
    seed: int = 0,
    keys: Sequence[str] | None = None,
    outputs: Literal["auto"] | OutputKind = "auto",
    output_key: OutputKey | None = None,
    layout: Layout = "auto",
    task: Tasks | None = None,
    transform: Transform | None = None,
    class_names: Sequence[str] | Mapping[int, str] | Mapping[str, int] = (),
) -> Explanations:
    """Compute the saliency maps of several CAM methods for a batch of images, with one shared forward pass.

    Pixels, logits and maps that are not finite raise nothing: the maps of such an image are zeros, marked in
    `degenerate`. The other images are not affected.

    Args:
        model: a classifier from (B, C, H, W) to logits (B, N), in float32, on any device; it is left unchanged.
        images: one or several PIL images, paths of files, or arrays (H, W, C) or tensors (C, H, W) of uint8, which
            become the model's input by its transform; or float tensors, (C, H, W) or (B, C, H, W), already normalised.
        methods: method names, `{name: {parameter: value}}`, or method objects; `camatlas methods` lists the names.
        layer: the target layer as a module or by name: `layer4`, `relu#2` (the second call of a module that runs
            several times), `bn1:input` (what goes into a module). "auto" takes the last layer at the deepest resolution
            whose patches reach the logits.
        targets: class indices from 0 to N - 1: one target class per image, (B,), or several, (B, T), which give B * T
            rows, image by image; not one-hot labels. None explains the predicted classes.
        precision: "fp32" (IEEE 754, on GPUs too), "tf32", or "bf16" for autocast; results are always float32.
        batch: most images in one pass, at least 1; halved when memory runs out.
        mean, std: the normalisation of the pixels, one number per colour, std > 0; only the baseline "black" and
            pictures use it. None takes that of the transform, read or measured, or, of three channels, ImageNet's; a
            warning says if a transform hides its own.
        stages: names of the layers for methods that combine several, shallow to deep, the target layer last. None finds
            the last layer of each resolution.
        seed: seed of the methods that draw random numbers.
        keys: one key per image, (B,), for these methods: the same seed and key give the same numbers. None uses the
            same key for all images.
        outputs: what the model returns: softmax (logits, exactly one class is true), sigmoid (logits of independent
            labels), binary (one logit z, which becomes [0, z]), probabilities, or raw (no confidences). "auto" takes
            softmax, and refuses outputs that are or may be something else.
        output_key: name or index of the logits in a returned dict, dataclass, tuple or list. None finds them if only
            one thing can be meant.
        layout: how the target layer's output is read: "channels_first" (B, K, u, v), "channels_last" (B, u, v, K),
            {"tokens": {"prefix": 1, "grid": [14, 14]}}, or a function, or its name "package.module:function": it
            receives the model and returns two functions, from the output to maps (B, K, u, v), and from changed maps
            and the output of one image back. "auto" finds out by a trial, which a stated layout must not contradict.
        task: what makes logits (B, N) of the results of a model that is no classifier: "segmentation", "detection", a
            function of what the model returns, or its name "package.module:function", `camatlas.Similarity(names,
            vectors)` or `camatlas.ZeroShot(names, vectors)`. A row whose class a detector does not find is degenerate.
        transform: how images become the input: weights of torchvision, their `transforms()`, or a function from an
            upright RGB PIL image to a float tensor (C, H, W), without chance. None takes that of a model of timm;
            other models do not know theirs.
        class_names: names of all classes in the order of the outputs, {index: name} or {name: index}, also as a pandas
            Series, which is read by its index; for pictures and tables; weights of torchvision bring
            theirs, for a model of as many classes.

    Returns:
        Explanations with `maps` ({method: (B, u, v) float32}, not normalised, for most methods at the resolution of the
        target layer), `degenerate` ({method: (B,) bool}, True for maps that are constant) and `heatmap(method)`
        ((B, H, W) in [0, 1]).

    Raises:
        ConfigError: a method is unknown or has a wrong parameter; an image cannot be read, or is ambiguous; or no
            transform is known (also a ValueError).
        LayerError: a layer is unknown or outputs no activation maps, or the model is not float32 (also a ValueError).
        ValueError: another argument has a wrong type, shape or range.

    Example:
        explanations = camatlas.explain(model, pixels, methods=["gradcam", {"iscam": {"num_steps": 10}}])
        explanations.maps["gradcam"].shape  # (B, u, v), for example (8, 7, 7)
        explanations.heatmap("iscam").shape  # (B, H, W), for example (8, 224, 224)
    """
    chosen, names = build_methods(methods), given_classes.names_of_classes(class_names)
    indices = None if targets is None else given_classes.class_indices(targets)
    model = unwrapped(model)
    given = Inputs.of(images, model, transform)
    pixels_BCHW, normalisation = given.pixels_BCHW, given.normalisation(mean, std)
    check_inputs(pixels_BCHW, indices)
    if normalisation.is_known:
        check_normalisation(pixels_BCHW, normalisation.mean, normalisation.std)
    found = tried_outputs(model, pixels_BCHW, outputs, output_key, task_of(task, model))
    check_confidences(found, chosen, {})
    wanted = Wanted(layer, stages, layout, found.task)
    known = recalled(model, wanted, pixels_BCHW)
    probe = Probe(
        model, known.layer, stages=known.stages, precision=precision, batch=batch, normalisation=normalisation,
        seed=seed, outputs=found, layout=known.layout,
    )  # fmt: skip
    with torch.inference_mode(False), multiplying(precision):
        indices = None if indices is None else indices.clone()
        with exceptions_told(model, pixels_BCHW, "the forward or backward pass", RuntimeError):
            for note in (*given_classes.name_notes(names), *probe.resolve(pixels_BCHW)):
                warnings.warn(note, stacklevel=2)
            check_attention(chosen, lambda: probe.attention(pixels_BCHW))
            observation = observe(pixels_BCHW, chosen, probe, keys)
            given_classes.check_classes(names, indices, classes := observation.logits_IN.shape[1], found.task)
            evidence = evidence_for(observation, indices)
            if stages is None:  # one stage that the user names is what he wants
                check_stages(chosen, evidence.layers)
            check_stored(chosen, evidence, has_keys=keys is not None)
            shape = (pixels_BCHW.shape[1], pixels_BCHW.shape[2], pixels_BCHW.shape[3])
            check_adapters(chosen, lambda: _trial_probe(probe, pixels_BCHW), shape)
        remember(model, wanted, probe, pixels_BCHW)
        with Reporting(f"explaining {len(pixels_BCHW)} images", probe.counts):
            explained = _explain_finite_rows(evidence, chosen, probe)
    names = names or given_classes.names_of_task(found.task) or given.names_of(classes)
    return replace(explained, preparation=given.preparation, class_names=names)


def evaluate(
    model: nn.Module,
    images: Images,
    explanations: Explanations,
    *,
    metrics: Iterable[Spec] = ("average_drop",),
    boxes: Sequence[Sequence[Sequence[float]] | Tensor | None] | None = None,
    masks: Sequence[Tensor | None] | None = None,
    parts: Sequence[Parts | None] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Compute metrics of explanations, such as faithfulness to the model and overlap with boxes of the target class.

    The model runs with its current weights, so do not change them between `explain` and `evaluate`.

    Args:
        model: the model that was given to `explain`.
        images: the images that were given to `explain`.
        explanations: the result of `explain`.
        metrics: metric names, `{name: {parameter: value}}`, or metric objects; `camatlas metrics` lists the names.
        boxes: per image, the boxes (x0, y0, x1, y1) of the target class in pixels of the input, (n, 4), or None.
            Boxes that lie outside of the image are ignored, with a warning if all do. torchvision's `BoundingBoxes` are
            read by their format; their canvas_size must be that of the input.
        masks: per image, the pixels of the target class, (H, W) bool, or None. A mask takes precedence over boxes.
        parts: per image, the mask and the values of its parts for one class, `camatlas.Parts`, or None.

    Returns:
        `{metric: {method: values}}`, with values (B,) float32, or (B, S) for a curve. A value is NaN where the metric
        does not apply, for example without boxes, or where the pixels or logits of the image are not finite.

    Raises:
        ConfigError: a metric is unknown or has a wrong parameter (also a ValueError).
        ValueError: the explanations are of another model or of other images; or boxes, masks or parts do not fit
            the images.

    Example:
        explanations = camatlas.explain(model, pixels, methods=["gradcam"])
        values = camatlas.evaluate(model, pixels, explanations, metrics=["average_drop", "insertion"])
        values["average_drop"]["gradcam"].mean()
    """
    if unwrapped(model) is not explanations.probe.model:
        raise ValueError("the explanations are of another model; pass the model that was given to explain")
    explanations.probe.renew()
    evidence = explanations.evidence
    pixels_BCHW = _pixels_again(images, explanations)
    if len(pixels_BCHW) != int(evidence.images_B[-1]) + 1 or not _same(
        pixels_BCHW.to(evidence.pixels_BCHW)[evidence.images_B], evidence.pixels_BCHW
    ):
        raise ValueError("the explanations are of other images; pass the images that were given to explain")
    size = (pixels_BCHW.shape[2], pixels_BCHW.shape[3])
    boxes_by_image = checked_boxes(boxes, len(pixels_BCHW), size)
    masks_by_image = checked_masks(masks, len(pixels_BCHW), size)
    parts_by_image = checked_parts(parts, len(pixels_BCHW), size, explanations.logits.shape[1])
    finite_B = _finite(evidence)
    rows = finite_B.nonzero()[:, 0]
    images = evidence.images_B[rows].tolist()
    by_image = boxes_by_image, masks_by_image, parts_by_image
    truth = Truth(*([of_image[image] for image in images] for of_image in by_image))
    chosen = build_metrics(metrics)
    check_confidences(explanations.probe.outputs, {}, chosen)
    check_redrawn(explanations.methods, chosen)
    if not images:
        return {name: dict.fromkeys(explanations.maps, _no_values(metric, finite_B)) for name, metric in chosen.items()}
    probe = explanations.probe
    reporting = Reporting(f"measuring {len(pixels_BCHW)} images", probe.counts)
    with torch.inference_mode(False), multiplying(probe.precision), reporting:
        measured = measure(explanations.select(rows), chosen, truth)
    return {
        name: {label: _all_rows(values, finite_B, torch.nan) for label, values in by_method.items()}
        for name, by_method in measured.items()
    }


def _pixels_again(images: Images, explanations: Explanations) -> Tensor:
    """Return the input of the model as `explain` made it."""
    ready = normalised(images)
    if ready is not None:
        return ready
    if explanations.preparation is None:
        raise ValueError("the explanations are of a float tensor; pass the tensor that was given to explain")
    return explanations.preparation(images)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _explain_finite_rows(evidence: Evidence, methods: Mapping[str, CamMethod], probe: Probe) -> Explanations:
    """Explain the rows with finite pixels and logits; other rows, and maps that are not finite, get zero maps."""
    finite_B = _finite(evidence)
    if not finite_B.any():
        zeros_Buv = torch.zeros_like(evidence.acts_BKuv[:, 0])
        maps = dict.fromkeys(methods, zeros_Buv)
    else:
        finite = explain_evidence(evidence.select(finite_B.nonzero()[:, 0]), methods, probe).maps
        maps = {label: _all_rows(_finite_or_zero(map_Ruv), finite_B, 0.0) for label, map_Ruv in finite.items()}
    return Explanations(
        maps, {label: is_degenerate(map_Buv) for label, map_Buv in maps.items()}, evidence, probe, methods
    )


def _finite(evidence: Evidence) -> Tensor:
    """Return True for the rows with finite pixels and logits, whose target class was found, (B,)."""
    finite_B = evidence.logits_BN.isfinite().all(1) & evidence.pixels_BCHW.isfinite().flatten(1).all(1)
    missed_BN = evidence.outputs.missed(evidence.logits_BN)
    return finite_B & ~missed_BN.gather(1, evidence.targets_B[:, None])[:, 0]


def _no_values(metric: Metric, finite_B: Tensor) -> Tensor:
    """Return NaN for every row, in the shape of the metric's values."""
    shape = (len(finite_B), metric.length()) if metric.curve else (len(finite_B),)
    return torch.full(shape, torch.nan, device=finite_B.device)


def _all_rows(values_R: Tensor, finite_B: Tensor, otherwise: float) -> Tensor:
    """Expand the values (or maps) of the finite rows to all rows; the others get the value `otherwise`."""
    values_B = values_R.new_full((len(finite_B), *values_R.shape[1:]), otherwise)
    values_B[finite_B] = values_R
    return values_B


def _finite_or_zero(map_Ruv: Tensor) -> Tensor:
    """Replace maps that are not finite by zeros."""
    nonfinite_R = ~map_Ruv.isfinite().flatten(1).all(1)
    return map_Ruv.masked_fill(nonfinite_R[:, None, None], 0.0)


def _trial_probe(probe: Probe, pixels_BCHW: Tensor) -> Probe:
    """Return a probe of the same model and layer whose passes are not counted."""
    return Probe(
        model_of_trials(probe.model, probe.outputs), probe.layer, outputs=probe.outputs,
        layout=probe.layouts(pixels_BCHW),
        normalisation=probe.normalisation,
    )  # fmt: skip
