"""Where model, methods, metrics and codec meet: the Explainer turns decoded chunks into rows.

Legend: B images, C colours, (H, W) pixels, N classes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from pipeline.cams import CamMethod
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.errors import CamatlasError, first_line
from pipeline.explain.batches import ImageBatch
from pipeline.explain.explanations import explain_evidence, measure, observe
from pipeline.explain.rows import (
    ImageFacts,
    MethodFacts,
    Row,
    explanation_row,
    failed_method_row,
    failure_row,
    to_table,
)
from pipeline.maps.codec import MapDtype
from pipeline.metrics import Metric, metric_fields
from pipeline.model.baselines import Normalisation
from pipeline.model.batching import is_out_of_memory, narrow
from pipeline.model.engine import Precision
from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.settings.registry import parameters
from pipeline.settings.targets import TargetRules
from pipeline.telemetry.events import Usage
from pipeline.telemetry.timers import Stopwatch
from schemas.explanation import explanation_schema
from schemas.manifest import canonical_json

Result = TypeVar("Result")

BATCH_MULTIPLE = 16
"""Passes of a run are filled up to a multiple of this; see `Batcher`."""
_FULL_PASSES = 64
"""Images that are explained together have at most about so many full masked passes, so that progress shows."""


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
        device, batch: where, and most images in one pass; None tries what is fastest.
        crop: side of the images.
        passes: masked passes of one image, in images, at most.
        compiled: whether masked passes are compiled.
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
    batch: int | None
    crop: int
    passes: int = 0
    seed: int = 0
    compiled: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows."""
        return explanation_schema(metric_fields(dict(self.metrics)))


def images_together(batch: int, passes: int) -> int:
    """Say how many images are explained together that need so many masked passes each, in passes of `batch` images."""
    return max(1, min(batch, _FULL_PASSES * batch // max(1, passes)))


class _Seen(NamedTuple):
    """Images after the pass that all methods share."""

    pairs: ImageBatch
    """One entry for each (image, target)."""
    evidence: Evidence | None
    """Of the pairs; None without any."""
    rules: list[str]
    failed: list[Row]


class _Trouble(NamedTuple):
    """Why images could not be explained: no exception, which would keep alive what filled the memory."""

    code: str
    detail: str


class Explainer:
    """Turns decoded chunks into rows; lives as long as its worker and holds the model on its device."""

    def __init__(self, model: nn.Module, spec: ExplainerSpec) -> None:
        self.spec = spec
        self.probe = Probe(
            model.to(spec.device),
            spec.layer,
            stages=spec.stages,
            precision=spec.precision,
            batch=spec.batch or BATCH_MULTIPLE,
            batch_multiple=BATCH_MULTIPLE,
            normalisation=spec.normalisation,
            seed=spec.seed,
            compiled=spec.compiled,
        )
        if spec.batch is None:
            self.probe.choose_batch((spec.crop, spec.crop))
        self._watch, self._told = Stopwatch(), replace(self.probe.counts)
        self._batchers = (self.probe.batcher, self.probe.scorer.batcher)
        self._smallest = self._size()
        self._facts = {
            label: MethodFacts(label, canonical_json(parameters(method)), self.probe.layer)
            for label, method in spec.methods.items()
        }

    def usage(self) -> Usage:
        """Tell what was spent since this was last asked."""
        before, now = self._told, replace(self.probe.counts)
        self._told = now
        passes = {
            "forward": now.forwards - before.forwards,
            "head": now.head_passes - before.head_passes,
            "backward": now.backwards - before.backwards,
        }
        known, self._smallest = self._smallest, min(self._smallest, self._size())
        return Usage(self._watch.take(), passes, self._smallest if self._smallest < known else None)

    def _size(self) -> int:
        return min(batcher.size for batcher in self._batchers)

    def tables(self, chunk: DecodedChunk) -> Iterator[pa.Table]:
        """Explain a chunk; each table holds the rows of some images, the rows of its failures come last."""
        ordinal = chunk.chunk.ordinal
        batch = ImageBatch(chunk.chunk.shard.name, ordinal, chunk.samples, chunk.pixels_NHWC)
        for piece in batch.pieces(images_together(self.probe.batcher.size, self.spec.passes)):
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
        found = self._tried(lambda: self._explained(batch))
        if not isinstance(found, _Trouble):
            return found
        if len(batch.samples) == 1:
            return self._alone(batch, found)
        halves = batch.pieces(-(-len(batch.samples) // 2))
        return [row for half in halves for row in self._spared(half)]

    def _tried(self, work: Callable[[], Result]) -> Result | _Trouble:
        """Do some work, or tell what an image may be blamed for."""
        try:
            return work()
        except (CamatlasError, torch.AcceleratorError):
            raise  # nothing that an image could be blamed for
        except Exception as error:  # a model may raise anything
            return _Trouble("out_of_memory" if is_out_of_memory(error) else "model_error", first_line(error))

    def _alone(self, image: ImageBatch, trouble: _Trouble) -> list[Row]:
        """Give up on an image that fails by itself, for want of memory not before a pass holds nothing but it."""
        sizes = [batcher.size for batcher in self._batchers]
        while trouble.code == "out_of_memory" and narrow(self._batchers):
            found = self._tried(lambda: self._explained(image))
            if not isinstance(found, _Trouble):
                return found  # and passes stay that small: the model wants more memory than there is
            trouble = found
        for batcher, size in zip(self._batchers, sizes, strict=True):
            batcher.size = size  # it is this image that wants too much: others lose nothing by it
        seen = self._tried(lambda: self._seen(image))
        if isinstance(seen, _Trouble):
            return [image.failed(image.samples[0], *trouble)]
        return seen.failed + [row for label in self.spec.methods for row in self._apart(seen, label)]

    def _apart(self, seen: _Seen, label: str) -> list[Row]:
        """Run one method on an image on which not all of them can be run; where it fails, its rows say so."""
        found = self._tried(lambda: self._rows(seen, {label: self.spec.methods[label]}))
        if not isinstance(found, _Trouble):
            return found
        code = "method_error" if found.code == "model_error" else found.code
        return [failed_method_row(image, self._facts[label], code, found.detail) for image in self._images(seen)]

    def _explained(self, batch: ImageBatch) -> list[Row]:
        """Explain the images on which the model gives finite logits; the others fail."""
        seen = self._seen(batch)
        return self._rows(seen, self.spec.methods) + seen.failed

    def _seen(self, batch: ImageBatch) -> _Seen:
        """Run the pass that all methods share, and choose the targets of the images with finite logits."""
        keys = [sample.key for sample in batch.samples]
        with self._watch.timing("evidence"):
            observation = observe(self._pixels(batch), self.spec.methods, self.probe, keys)
            finite_I = observation.logits_IN.isfinite().all(1)
            finite_N = finite_I.cpu().numpy()  # waits for the device, so that its time is counted here
        labels = [sample.classes for sample in batch.samples]
        images_B, targets_B, rules = self.spec.targets.chosen(observation.logits_IN.nan_to_num(), labels)
        kept_B = finite_I[images_B]
        images_B, targets_B = images_B[kept_B], targets_B[kept_B]
        rules = [rule for rule, kept in zip(rules, kept_B.tolist(), strict=True) if kept]
        rows = [
            batch.failed(sample, "nonfinite", "the model gave NaN or infinite logits")
            for sample in batch.where(~finite_N).samples
        ]
        evidence = observation.evidence_of(images_B, targets_B) if rules else None
        return _Seen(batch.rows(images_B.tolist()), evidence, rules, rows)

    def _rows(self, seen: _Seen, methods: Mapping[str, CamMethod]) -> list[Row]:
        """Run methods and metrics; one row per image, target and method, in this order."""
        if seen.evidence is None:
            return []
        with self._watch.timing("methods"):
            explanations = explain_evidence(seen.evidence, methods, self.probe)
            maps = {label: map_Buv.float().cpu().numpy() for label, map_Buv in explanations.maps.items()}
        with self._watch.timing("metrics"):
            values = measure(explanations, self.spec.metrics, seen.pairs.truth(seen.evidence.targets_B))
            values_BM = {name: {label: found.tolist() for label, found in by.items()} for name, by in values.items()}
        return [
            explanation_row(
                image,
                self._facts[label],
                maps[label][i],
                {name: by_method[label][i] for name, by_method in values_BM.items()},
                self.spec.maps,
            )
            for i, image in enumerate(self._images(seen))
            for label in methods
        ]

    def _images(self, seen: _Seen) -> list[ImageFacts]:
        pairs, evidence = seen.pairs, seen.evidence
        if evidence is None:
            return []
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
                pairs.samples, seen.rules, *(column.tolist() for column in columns), strict=True
            )
        ]

    def _pixels(self, batch: ImageBatch) -> Tensor:
        pixels_BHWC = torch.tensor(batch.pixels_NHWC)
        if self.probe.device.type == "cuda":  # the copy runs beside what the device still does
            pixels_BHWC = pixels_BHWC.pin_memory().to(self.probe.device, non_blocking=True)
        return self.spec.normalisation.apply(pixels_BHWC.permute(0, 3, 1, 2).float().div(255))

    def _label_trouble(self, sample: DecodedSample) -> str:
        unknown = [label for label in sample.classes if label >= self.spec.classes]
        if unknown:
            return f"label {unknown[0]}, the model knows {self.spec.classes} classes"
        return self.spec.targets.trouble(sample.classes)
