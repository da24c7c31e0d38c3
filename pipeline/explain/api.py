"""The door for notebooks and tests: `explain` and `evaluate` for a batch of tensors, without a run.

Legend: B images, T targets of one image, M methods, C colours, (H, W) pixels, N classes.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.cams import CamMethod, build_methods
from pipeline.explain.explanations import Explanations, explain_evidence, measure, observe
from pipeline.maps.heatmaps import is_degenerate
from pipeline.metrics import Metric, Truth, build_metrics
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD, Normalisation
from pipeline.model.engine import Precision
from pipeline.model.evidence import Evidence, Observation
from pipeline.model.probe import DEFAULT_BATCH, Probe
from pipeline.settings.registry import Spec


def explain(
    model: nn.Module,
    pixels_BCHW: Tensor,
    *,
    methods: Iterable[Spec] = ("gradcam",),
    layer: str | nn.Module = "auto",
    targets: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None,
    precision: Precision = "fp32",
    batch: int = DEFAULT_BATCH,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    stages: Sequence[str] | None = None,
    seed: int = 0,
    keys: Sequence[str] | None = None,
) -> Explanations:
    """Explain a batch of images by several CAM methods that share one forward pass.

    An image with pixels or logits that are not finite gets maps of zeros, flagged in `degenerate`; so does a map that
    is not finite. Nothing is raised for them, and the other images are explained as if they were alone.

    Args:
        model: a classifier (B, C, H, W) -> logits (B, N), on any device; left as it was found.
        pixels_BCHW: images, already normalised for the model.
        methods: names, `{name: {parameter: value}}`, or method objects.
        layer: target layer by name, as a module, or "auto" for the last convolutional stage of a known family.
        targets: class to explain of each image (B,), or classes of each image (B, T), which gives B T rows, image by
            image; None explains the predicted class.
        precision: "fp32" or "bf16".
        batch: most images in one pass; halved when memory runs out.
        mean, std: what normalised the pixels; only the baselines black and blur read it.
        stages: layers for methods that fuse several, shallow to deep, the target layer last; None finds the last
            layer of each resolution.
        seed, keys: of methods that draw random numbers: the seed, and a name of each image; the same name gives the
            same numbers.

    Raises:
        ConfigError: unknown or wrong methods, targets that do not fit (also a ValueError).
        LayerError: the layer is unknown or gives no activation maps (also a ValueError).
    """
    chosen = build_methods(methods)
    normalisation = Normalisation(mean, std)
    probe = Probe(model, layer, stages=stages, precision=precision, batch=batch, normalisation=normalisation, seed=seed)
    targets_B = None if targets is None else _indices(targets)
    _check_inputs(pixels_BCHW, targets_B)
    _check_normalisation(pixels_BCHW, mean, std)
    with torch.inference_mode(False):
        targets_B = None if targets_B is None else targets_B.clone()
        observation = observe(pixels_BCHW, chosen, probe, keys)
        return _explained(_requested(observation, targets_B), chosen, probe)


def evaluate(
    model: nn.Module,
    pixels_BCHW: Tensor,
    explanations: Explanations,
    *,
    metrics: Iterable[Spec] = ("average_drop",),
    boxes: Sequence[Sequence[Sequence[float]] | None] | None = None,
    masks: Sequence[Tensor | None] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Measure explanations: `{metric: {method: (B,) float32}}`, of a curve (B, S); NaN where a metric does not apply.

    Args:
        model: the model that was explained.
        pixels_BCHW: the images that were explained.
        explanations: what `explain` gave for them.
        metrics: names, `{name: {parameter: value}}`, or metric objects.
        boxes: per image the boxes (x0, y0, x1, y1) of the target in pixels of the input; None without boxes. Boxes
            outside the image do not count.
        masks: per image the pixels of the target, (H, W) bool, which count instead of its boxes; None without a mask.

    Raises:
        ConfigError: unknown or wrong metrics (also a ValueError).
        ValueError: the model, images or boxes are not those of the explanations.
    """
    if model is not explanations.probe.model:
        raise ValueError("the explanations were made with another model")
    explanations.probe.renew()
    evidence = explanations.evidence
    if len(pixels_BCHW) != int(evidence.images_B[-1]) + 1 or not _same(
        pixels_BCHW.to(evidence.pixels_BCHW)[evidence.images_B], evidence.pixels_BCHW
    ):
        raise ValueError("the explanations were made of other images")
    per_image = [None] * len(pixels_BCHW) if boxes is None else list(boxes)
    if len(per_image) != len(pixels_BCHW):
        raise ValueError(f"{len(per_image)} lists of boxes for {len(pixels_BCHW)} images")
    size = (pixels_BCHW.shape[2], pixels_BCHW.shape[3])
    given = [_truth(found, size) for found in per_image]
    masked = _checked_masks(masks, len(pixels_BCHW), size)
    finite_B = _finite(evidence)
    rows = finite_B.nonzero()[:, 0]
    images = evidence.images_B[rows].tolist()
    truth = Truth([given[image] for image in images], [masked[image] for image in images])
    chosen = build_metrics(metrics)
    if not images:
        return {name: dict.fromkeys(explanations.maps, _nothing(metric, finite_B)) for name, metric in chosen.items()}
    with torch.inference_mode(False):
        found = measure(explanations.select(rows), chosen, truth)
    return {
        name: {label: _all_rows(values, finite_B, torch.nan) for label, values in by.items()}
        for name, by in found.items()
    }


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _indices(targets: object) -> Tensor:
    try:
        indices = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"targets are class indices, (B,) or (B, T), or None for the predicted class: {error}"
        ) from None
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(f"targets are class indices, not {indices.dtype}")
    return indices


def _check_normalisation(pixels_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    colours = pixels_BCHW.shape[1]
    if len(mean) != colours or len(std) != colours or min(std) <= 0:
        raise ValueError(f"mean and std are {colours} numbers each, as the images have colours, and std is positive")


def _check_inputs(pixels_BCHW: Tensor, targets: Tensor | None) -> None:
    if not isinstance(pixels_BCHW, Tensor):
        raise ValueError(f"pixels are a float tensor (B, C, H, W), not {type(pixels_BCHW).__name__}")
    if pixels_BCHW.ndim != 4 or not len(pixels_BCHW) or not pixels_BCHW.is_floating_point():
        raise ValueError(f"pixels are a float tensor (B, C, H, W), not {pixels_BCHW.dtype} {tuple(pixels_BCHW.shape)}")
    if targets is None:
        return
    if targets.shape[:1] != pixels_BCHW.shape[:1] or targets.ndim > 2 or not targets.numel():
        raise ValueError(f"{len(pixels_BCHW)} images need as many targets, not {tuple(targets.shape)}")


def _truth(boxes: Sequence[Sequence[float]] | None, size: tuple[int, int]) -> Tensor | None:
    """Boxes of one image that touch it; raises ValueError for what is no box."""
    if boxes is None:
        return None
    try:
        boxes_n4 = torch.as_tensor(boxes, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"boxes of an image are rows of four finite numbers (x0, y0, x1, y1), not {boxes!r}") from None
    if boxes_n4.numel() == 0:
        return boxes_n4.reshape(0, 4)
    if boxes_n4.ndim != 2 or boxes_n4.shape[1] != 4 or not bool(boxes_n4.isfinite().all()):
        raise ValueError(f"boxes of an image are rows of four finite numbers (x0, y0, x1, y1), not {boxes!r}")
    low_n2, high_n2 = boxes_n4[:, :2], boxes_n4[:, 2:]
    if bool((low_n2 > high_n2).any()):
        raise ValueError(f"a box has x0 <= x1 and y0 <= y1, not {boxes!r}")
    height, width = size
    touches_n = (low_n2 < torch.tensor([width, height])).all(1) & (high_n2 > 0).all(1)
    return boxes_n4[touches_n]


def _explained(evidence: Evidence, methods: Mapping[str, CamMethod], probe: Probe) -> Explanations:
    """Explain the rows that can be; the maps of the others, and maps that are not finite, are zeros and flagged."""
    finite_B = _finite(evidence)
    if not finite_B.any():
        nothing_Buv = torch.zeros_like(evidence.acts_BKuv[:, 0])
        maps = dict.fromkeys(methods, nothing_Buv)
    else:
        found = explain_evidence(evidence.select(finite_B.nonzero()[:, 0]), methods, probe).maps
        maps = {label: _all_rows(_shown(map_Ruv), finite_B, 0.0) for label, map_Ruv in found.items()}
    return Explanations(
        maps, {label: is_degenerate(map_Buv) for label, map_Buv in maps.items()}, evidence, probe, methods
    )


def _finite(evidence: Evidence) -> Tensor:
    """Rows that can be explained, (B,)."""
    return evidence.logits_BN.isfinite().all(1) & evidence.pixels_BCHW.isfinite().flatten(1).all(1)


def _nothing(metric: Metric, finite_B: Tensor) -> Tensor:
    """Values of rows none of which can be measured."""
    shape = (len(finite_B), metric.length()) if metric.curve else (len(finite_B),)
    return torch.full(shape, torch.nan, device=finite_B.device)


def _all_rows(values_R: Tensor, finite_B: Tensor, otherwise: float) -> Tensor:
    """Values (or maps) of all rows from those of the finite ones."""
    values_B = values_R.new_full((len(finite_B), *values_R.shape[1:]), otherwise)
    values_B[finite_B] = values_R
    return values_B


def _shown(map_Ruv: Tensor) -> Tensor:
    """Zero maps in the place of those that are not finite."""
    broken_R = ~map_Ruv.isfinite().flatten(1).all(1)
    return map_Ruv.masked_fill(broken_R[:, None, None], 0.0)


def _checked_masks(
    masks: Sequence[Tensor | None] | None, images: int, size: tuple[int, int]
) -> Sequence[Tensor | None]:
    given = [None] * images if masks is None else list(masks)
    if len(given) != images:
        raise ValueError(f"{len(given)} masks for {images} images")
    for mask in given:
        if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            raise ValueError(f"a mask is a tensor (H, W) of bool, not {getattr(mask, 'dtype', type(mask).__name__)}")
        if mask is not None and tuple(mask.shape) != size:
            raise ValueError(f"a mask has the size of the images {size}, not {tuple(mask.shape)}")
    return given


def _requested(observation: Observation, targets: Tensor | None) -> Evidence:
    if targets is None or targets.ndim == 1:
        return observation.evidence(targets)
    targets_BT = targets.to(observation.logits_IN.device).long()
    images_B = torch.arange(len(targets_BT), device=targets_BT.device).repeat_interleave(targets_BT.shape[1])
    return observation.evidence_of(images_B, targets_BT.flatten())
