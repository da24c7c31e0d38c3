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
from pipeline.config import TargetRule
from pipeline.decode import DecodedChunk, DecodedSample
from pipeline.errors import CamatlasError, first_line
from pipeline.explanations import Explanations, explain_evidence, measure
from pipeline.metrics import Metric, Truth, build_metrics, metric_fields
from pipeline.model.baselines import IMAGENET_MEAN, IMAGENET_STD, Normalisation
from pipeline.model.batching import is_out_of_memory
from pipeline.model.probe import DEFAULT_BATCH, Evidence, Precision, Probe
from pipeline.registry import Spec, parameters
from pipeline.rows import ImageFacts, MethodFacts, Row, explanation_row, failure_row, to_table
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
    targets: Sequence[int] | Tensor | None = None,
    precision: Precision = "fp32",
    batch: int = DEFAULT_BATCH,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Explanations:
    """Explain a batch of images by several CAM methods that share one forward pass.

    Args:
        model: a classifier (B, C, H, W) -> logits (B, N), on any device; left as it was found.
        pixels_BCHW: images, already normalised for the model.
        methods: names, `{name: {parameter: value}}`, or method objects.
        layer: target layer by name, as a module, or "auto" for the last convolutional stage of a known family.
        targets: class to explain of each image; None explains the predicted class.
        precision: "fp32" or "bf16".
        batch: most images in one pass; halved when memory runs out.
        mean, std: what normalised the pixels; only the baselines black and blur read it.

    Raises:
        ConfigError: unknown or wrong methods, targets that do not fit (also a ValueError).
        LayerError: the layer is unknown or gives no activation maps (also a ValueError).
    """
    chosen = build_methods(methods)
    probe = Probe(model, layer, precision=precision, batch=batch, normalisation=Normalisation(mean, std))
    targets_B = None if targets is None else torch.as_tensor(targets)
    _check_inputs(pixels_BCHW, targets_B)
    gradients = any(method.needs.gradients for method in chosen.values())
    return explain_evidence(probe.capture(pixels_BCHW, targets_B, gradients=gradients), chosen, probe)


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
        boxes: per image the boxes (x0, y0, x1, y1) of the target in pixels of the input; None without boxes.

    Raises:
        ConfigError: unknown or wrong metrics (also a ValueError).
        ValueError: the model, images or boxes are not those of the explanations.
    """
    if model is not explanations.probe.model:
        raise ValueError("the explanations were made with another model")
    evidence = explanations.evidence
    if not torch.equal(pixels_BCHW.to(evidence.pixels_BCHW), evidence.pixels_BCHW):
        raise ValueError("the explanations were made of other images")
    per_image = [None] * len(pixels_BCHW) if boxes is None else list(boxes)
    if len(per_image) != len(pixels_BCHW):
        raise ValueError(f"{len(per_image)} lists of boxes for {len(pixels_BCHW)} images")
    truth = Truth([None if box is None else torch.as_tensor(box).reshape(-1, 4) for box in per_image])
    return measure(explanations, build_metrics(metrics), truth)


def _check_inputs(pixels_BCHW: Tensor, targets_B: Tensor | None) -> None:
    if pixels_BCHW.ndim != 4 or not len(pixels_BCHW) or not pixels_BCHW.is_floating_point():
        raise ValueError(f"pixels are a float tensor (B, C, H, W), not {pixels_BCHW.dtype} {tuple(pixels_BCHW.shape)}")
    if targets_B is not None and targets_B.shape != pixels_BCHW.shape[:1]:
        raise ValueError(f"{len(pixels_BCHW)} images need as many targets, not {tuple(targets_B.shape)}")


@dataclass(frozen=True)
class ExplainerSpec:
    """Everything that an Explainer needs beside the model; travels to the workers.

    Attributes:
        layer: name of the target layer.
        methods, metrics: by their name in the run.
        normalisation: of the model's inputs.
        classes: number of the model's logits; labels beyond it are failures.
        target_rule: which class is explained.
        maps: how maps are stored.
        device, batch: where, and most images in one pass.
    """

    layer: str
    methods: Mapping[str, CamMethod]
    metrics: Mapping[str, Metric]
    normalisation: Normalisation
    classes: int
    target_rule: TargetRule
    precision: Precision
    maps: MapDtype
    device: str
    batch: int

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
            precision=spec.precision,
            batch=spec.batch,
            batch_multiple=BATCH_MULTIPLE,
            normalisation=spec.normalisation,
        )
        self._gradients = any(method.needs.gradients for method in spec.methods.values())
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
        evidence = self.probe.capture(self._pixels(batch), self._targets(batch), gradients=self._gradients)
        finite_B = evidence.logits_BN.isfinite().all(1)
        finite = finite_B.cpu().numpy()
        rows = [
            batch.failed(sample, "nonfinite", "the model gave NaN or infinite logits")
            for sample in batch.where(~finite).samples
        ]
        return self._rows(batch.where(finite), evidence.select(finite_B)) + rows

    def _rows(self, batch: ImageBatch, evidence: Evidence) -> list[Row]:
        """Run methods and metrics; one row per image and method, in this order."""
        if not batch.samples:
            return []
        explanations = explain_evidence(evidence, self.spec.methods, self.probe)
        values = measure(explanations, self.spec.metrics, batch.truth(evidence.targets_B))
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
            for i, image in enumerate(self._images(batch, evidence))
            for label, facts in self._facts.items()
        ]

    def _images(self, batch: ImageBatch, evidence: Evidence) -> list[ImageFacts]:
        confidence_B, predicted_B = evidence.logits_BN.softmax(1).max(1)
        columns = (
            predicted_B, confidence_B, evidence.targets_B, evidence.target_confidences_B, evidence.target_logits_B
        )  # fmt: skip
        return [
            ImageFacts(
                image_key=sample.key,
                shard=batch.shard,
                chunk=batch.chunk,
                image_height=sample.size[0],
                image_width=sample.size[1],
                label=sample.label,
                predicted=predicted,
                confidence=confidence,
                target=target,
                target_rule=self.spec.target_rule,
                target_confidence=target_confidence,
                target_logit=target_logit,
            )
            for sample, predicted, confidence, target, target_confidence, target_logit in zip(
                batch.samples, *(column.tolist() for column in columns), strict=True
            )
        ]

    def _pixels(self, batch: ImageBatch) -> Tensor:
        pixels_BHWC = torch.tensor(batch.pixels_NHWC).to(self.probe.device)
        return self.spec.normalisation.apply(pixels_BHWC.permute(0, 3, 1, 2).float().div(255).contiguous())

    def _targets(self, batch: ImageBatch) -> Tensor | None:
        if self.spec.target_rule == "predicted":
            return None
        return torch.tensor([sample.label for sample in batch.samples])

    def _label_trouble(self, sample: DecodedSample) -> str:
        if sample.label is None:
            return "no label, and targets: label needs one" if self.spec.target_rule == "label" else ""
        if sample.label >= self.spec.classes:
            return f"label {sample.label}, the model knows {self.spec.classes} classes"
        return ""
