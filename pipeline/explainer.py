"""Where model, methods, metrics and codec meet: `explain` and `evaluate` for tensors, `Explainer` for chunks.

Legend: B images, C colours, (H, W) pixels, N classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from pipeline.batches import ImageBatch
from pipeline.cams import CamMethod, build_methods
from pipeline.codec import MapDtype
from pipeline.decode import DecodedChunk, DecodedSample
from pipeline.errors import CamatlasError, first_line
from pipeline.explanations import Explanations, explain_evidence, measure, observe
from pipeline.metrics import Metric, Truth, build_metrics, metric_fields
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD, Normalisation
from pipeline.model.batching import is_out_of_memory
from pipeline.model.evidence import Evidence, Observation
from pipeline.model.probe import DEFAULT_BATCH, Precision, Probe
from pipeline.registry import Spec, parameters
from pipeline.rows import ImageFacts, MethodFacts, Row, explanation_row, failure_row, to_table
from pipeline.targets import TargetRules
from schemas.explanation import explanation_schema
from schemas.manifest import canonical_json

BATCH_MULTIPLE = 16
"""Passes of a run are filled up to a multiple of this; see `Batcher`."""


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
    targets_B = None if targets is None else torch.as_tensor(targets)
    _check_inputs(pixels_BCHW, targets_B)
    with torch.inference_mode(False):
        targets_B = None if targets_B is None else targets_B.clone()
        observation = observe(pixels_BCHW, chosen, probe, keys)
        return explain_evidence(_asked(observation, targets_B), chosen, probe)


def evaluate(
    model: nn.Module,
    pixels_BCHW: Tensor,
    explanations: Explanations,
    *,
    metrics: Iterable[Spec] = ("average_drop",),
    boxes: Sequence[Sequence[Sequence[float]] | None] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Measure explanations: `{metric: {method: (B,) float32}}`, NaN where a metric does not apply.

    Args:
        model: the model that was explained.
        pixels_BCHW: the images that were explained.
        explanations: what `explain` gave for them.
        metrics: names, `{name: {parameter: value}}`, or metric objects.
        boxes: per image the boxes (x0, y0, x1, y1) of the target in pixels of the input; None without boxes. Boxes
            outside the image do not count.

    Raises:
        ConfigError: unknown or wrong metrics (also a ValueError).
        ValueError: the model, images or boxes are not those of the explanations.
    """
    if model is not explanations.probe.model:
        raise ValueError("the explanations were made with another model")
    evidence = explanations.evidence
    if len(pixels_BCHW) != int(evidence.images_B[-1]) + 1 or not torch.equal(
        pixels_BCHW.to(evidence.pixels_BCHW)[evidence.images_B], evidence.pixels_BCHW
    ):
        raise ValueError("the explanations were made of other images")
    per_image = [None] * len(pixels_BCHW) if boxes is None else list(boxes)
    if len(per_image) != len(pixels_BCHW):
        raise ValueError(f"{len(per_image)} lists of boxes for {len(pixels_BCHW)} images")
    size = (pixels_BCHW.shape[2], pixels_BCHW.shape[3])
    given = [_truth(found, size) for found in per_image]
    truth = Truth([given[image] for image in evidence.images_B.tolist()])
    return measure(explanations, build_metrics(metrics), truth)


def _check_inputs(pixels_BCHW: Tensor, targets: Tensor | None) -> None:
    if not isinstance(pixels_BCHW, Tensor):
        raise ValueError(f"pixels are a float tensor (B, C, H, W), not {type(pixels_BCHW).__name__}")
    if pixels_BCHW.ndim != 4 or not len(pixels_BCHW) or not pixels_BCHW.is_floating_point():
        raise ValueError(f"pixels are a float tensor (B, C, H, W), not {pixels_BCHW.dtype} {tuple(pixels_BCHW.shape)}")
    if targets is None:
        return
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets are class indices, not {targets.dtype}")
    if targets.shape[:1] != pixels_BCHW.shape[:1] or targets.ndim > 2 or not targets.numel():
        raise ValueError(f"{len(pixels_BCHW)} images need as many targets, not {tuple(targets.shape)}")


def _truth(boxes: Sequence[Sequence[float]] | None, size: tuple[int, int]) -> Tensor | None:
    """Boxes of one image that touch it; raises ValueError for what is no box."""
    if boxes is None:
        return None
    boxes_n4 = torch.as_tensor(boxes, dtype=torch.float64)
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


def _asked(observation: Observation, targets: Tensor | None) -> Evidence:
    if targets is None or targets.ndim == 1:
        return observation.evidence(targets)
    targets_BT = targets.to(observation.logits_IN.device).long()
    images_B = torch.arange(len(targets_BT), device=targets_BT.device).repeat_interleave(targets_BT.shape[1])
    return observation.evidence_of(images_B, targets_BT.flatten())


@dataclass(frozen=True)
class ExplainerSpec:
    """Everything that an Explainer needs beside the model; travels to the workers.

    Attributes:
        layer, stages: names of the target layer, and of the layers for methods that fuse several.
        methods, metrics: by their name in the run.
        normalisation: of the model's inputs.
        classes: number of the model's logits; labels beyond it are failures.
        targets: which classes are explained.
        seed: of the methods that draw random numbers.
        maps: how maps are stored.
        device, batch: where, and most images in one pass.
    """

    layer: str
    stages: tuple[str, ...]
    methods: Mapping[str, CamMethod]
    metrics: Mapping[str, Metric]
    normalisation: Normalisation
    classes: int
    targets: TargetRules
    precision: Precision
    maps: MapDtype
    device: str
    batch: int
    seed: int = 0

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows."""
        return explanation_schema(metric_fields(dict(self.metrics)))


class Explainer:
    """Turns decoded chunks into rows; lives as long as its worker and holds the model on its device."""

    def __init__(self, model: nn.Module, spec: ExplainerSpec) -> None:
        self.spec = spec
        self.probe = Probe(
            model.to(spec.device),
            spec.layer,
            stages=spec.stages,
            precision=spec.precision,
            batch=spec.batch,
            batch_multiple=BATCH_MULTIPLE,
            normalisation=spec.normalisation,
            seed=spec.seed,
        )
        self._facts = {
            label: MethodFacts(label, canonical_json(parameters(method)), self.probe.layer)
            for label, method in spec.methods.items()
        }

    def tables(self, chunk: DecodedChunk) -> Iterator[pa.Table]:
        """Explain a chunk; each table holds the rows of some images, the rows of its failures come last."""
        ordinal = chunk.chunk.ordinal
        batch = ImageBatch(chunk.chunk.shard.name, ordinal, chunk.samples, chunk.pixels_NHWC)
        for piece in batch.pieces(self.spec.batch):
            yield to_table(self._labelled(piece), self.spec.schema)
        yield to_table([failure_row(failure, ordinal) for failure in chunk.failures], self.spec.schema)

    def _labelled(self, batch: ImageBatch) -> list[Row]:
        """Explain the images whose label fits the model; the others fail."""
        troubles = [self._label_trouble(sample) for sample in batch.samples]
        rows = [
            batch.failed(sample, "label", trouble)
            for sample, trouble in zip(batch.samples, troubles, strict=True)
            if trouble
        ]
        return self._spared(batch.where(np.array([not trouble for trouble in troubles]))) + rows

    def _spared(self, batch: ImageBatch) -> list[Row]:
        """Explain a batch; when that raises, find the image to blame by halving and spare the others."""
        if not batch.samples:
            return []
        try:
            return self._explained(batch)
        except (CamatlasError, torch.AcceleratorError):
            raise  # nothing that an image could be blamed for
        except Exception as error:  # a model may raise anything
            if len(batch.samples) == 1:
                code = "out_of_memory" if is_out_of_memory(error) else "model_error"
                return [batch.failed(batch.samples[0], code, first_line(error))]
        halves = batch.pieces(-(-len(batch.samples) // 2))
        return [row for half in halves for row in self._spared(half)]

    def _explained(self, batch: ImageBatch) -> list[Row]:
        """Explain the images on which the model gives finite logits; the others fail."""
        keys = [sample.key for sample in batch.samples]
        observation = observe(self._pixels(batch), self.spec.methods, self.probe, keys)
        finite_I = observation.logits_IN.isfinite().all(1)
        labels = [sample.label for sample in batch.samples]
        images_B, targets_B, rules = self.spec.targets.chosen(observation.logits_IN.nan_to_num(), labels)
        kept_B = finite_I[images_B]
        images_B, targets_B = images_B[kept_B], targets_B[kept_B]
        rules = [rule for rule, kept in zip(rules, kept_B.tolist(), strict=True) if kept]
        rows = [
            batch.failed(sample, "nonfinite", "the model gave NaN or infinite logits")
            for sample in batch.where(~finite_I.cpu().numpy()).samples
        ]
        if not rules:
            return rows
        pairs = batch.rows(images_B.tolist())
        return self._rows(pairs, observation.evidence_of(images_B, targets_B), rules) + rows

    def _rows(self, pairs: ImageBatch, evidence: Evidence, rules: list[str]) -> list[Row]:
        """Run methods and metrics; one row per image, target and method, in this order."""
        explanations = explain_evidence(evidence, self.spec.methods, self.probe)
        values = measure(explanations, self.spec.metrics, pairs.truth(evidence.targets_B))
        values_BM = {name: {label: found.tolist() for label, found in by.items()} for name, by in values.items()}
        maps = {label: map_Buv.float().cpu().numpy() for label, map_Buv in explanations.maps.items()}
        return [
            explanation_row(
                image,
                facts,
                maps[label][i],
                {name: by_method[label][i] for name, by_method in values_BM.items()},
                self.spec.maps,
            )
            for i, image in enumerate(self._images(pairs, evidence, rules))
            for label, facts in self._facts.items()
        ]

    def _images(self, pairs: ImageBatch, evidence: Evidence, rules: list[str]) -> list[ImageFacts]:
        confidence_B, predicted_B = evidence.logits_BN.softmax(1).max(1)
        columns = (
            predicted_B, confidence_B, evidence.targets_B, evidence.target_confidences_B, evidence.target_logits_B
        )  # fmt: skip
        return [
            ImageFacts(
                image_key=sample.key,
                shard=pairs.shard,
                chunk=pairs.chunk,
                image_height=sample.size[0],
                image_width=sample.size[1],
                label=sample.label,
                predicted=predicted,
                confidence=confidence,
                target=target,
                target_rule=rule,
                target_confidence=target_confidence,
                target_logit=target_logit,
            )
            for sample, rule, predicted, confidence, target, target_confidence, target_logit in zip(
                pairs.samples, rules, *(column.tolist() for column in columns), strict=True
            )
        ]

    def _pixels(self, batch: ImageBatch) -> Tensor:
        pixels_BHWC = torch.tensor(batch.pixels_NHWC).to(self.probe.device)
        return self.spec.normalisation.apply(pixels_BHWC.permute(0, 3, 1, 2).float().div(255).contiguous())

    def _label_trouble(self, sample: DecodedSample) -> str:
        if sample.label is None:
            return "no label, and targets: label needs one" if self.spec.targets.needs_label else ""
        if sample.label >= self.spec.classes:
            return f"label {sample.label}, the model knows {self.spec.classes} classes"
        return ""
