"""Turns decoded chunks into rows of the run: runs the model, its methods and metrics, and encodes the maps.

Legend: I or N images (but N classes in `logits_IN`, `logits_BN`), B rows (image, target), C colours, (H, W) pixels.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from pipeline.cams import CamMethod
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.explain.attempting import FailureReason, attempted, device_failures_told
from pipeline.explain.batches import ImageBatch, parts_problem
from pipeline.explain.completion import completed
from pipeline.explain.explanations import as_arrays, observe
from pipeline.explain.plugged import METHOD_ERROR, Failures, explain_each, measure_each, note_silent, watch
from pipeline.explain.row_columns import Explained, Made, UnmadeRows, table_of
from pipeline.explain.rows import MethodFacts, failed_method_row, failure_row
from pipeline.explain.shared_pass import Pairs, SharedPass
from pipeline.maps.dtypes import MapDtype
from pipeline.metrics import Metric, metric_fields
from pipeline.model.arithmetic import multiplying
from pipeline.model.baselines import Normalisation, unit_pixels
from pipeline.model.batching import narrow
from pipeline.model.engine import Precision
from pipeline.model.layout_choice import FoundLayouts, Layout
from pipeline.model.outputs import Outputs
from pipeline.model.probe import Probe
from pipeline.model.transfers import host_arrays
from pipeline.model.uploads import Uploads
from pipeline.settings.registry import parameters
from pipeline.settings.targets import TargetRules
from pipeline.telemetry.events import Usage
from pipeline.telemetry.timers import Stopwatch
from schemas.explanation import explanation_schema
from schemas.manifest import canonical_json

Result = TypeVar("Result")

BATCH_MULTIPLE = 16
"""Passes of a run are padded to a multiple of this many images; see `Batcher`."""
_FULL_PASSES = 64
"""Images are explained together while they need at most about this many full masked passes, so that progress shows."""


@dataclass(frozen=True)
class ExplainerSpec:
    """Settings that an Explainer needs besides the model; they are sent to the workers.

    Attributes:
        layer, stages: names of the target layer, and of the layers for methods that combine several.
        methods, metrics: the methods and metrics by their name in the run.
        normalisation: mean and std of the model's inputs.
        classes: number of logits; an image with a label beyond it is a failure.
        outputs: how the model's return value becomes logits and confidences.
        targets: which classes are explained.
        precision: of the forward and backward passes.
        maps: encoding of the stored maps.
        device, batch: where the model runs, and most images in one pass; None chooses the fastest size.
        size: (height, width) of the images in pixels.
        passes: upper bound of the masked images that one image needs.
        seed: of methods that draw random numbers.
        compiled: whether masked passes are compiled.
        layouts: how the outputs of the layers are read.
        has_metadata: whether the rows hold further columns of the images.
        weights: sha256 of the model's weights; the parts of images must be of these.
    """

    layer: str
    stages: tuple[str, ...]
    methods: Mapping[str, CamMethod]
    metrics: Mapping[str, Metric]
    normalisation: Normalisation
    classes: int
    outputs: Outputs
    targets: TargetRules
    precision: Precision
    maps: MapDtype
    device: str
    batch: int | None
    size: tuple[int, int]
    passes: int = 0
    seed: int = 0
    compiled: bool = False
    layouts: FoundLayouts | Layout = "auto"
    has_metadata: bool = False
    weights: str = ""

    @property
    def schema(self) -> pa.Schema:
        """Schema of the rows."""
        return explanation_schema(metric_fields(dict(self.metrics)), has_metadata=self.has_metadata)


def images_together(batch: int, passes: int) -> int:
    """Return how many images to explain together if each needs `passes` masked images, in passes of `batch` images."""
    return max(1, min(batch, _FULL_PASSES * batch // max(1, passes)))


class Explainer:
    """Turns decoded chunks into rows; a worker creates one and keeps it, with the model on its device."""

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
            outputs=spec.outputs,
            layout=spec.layouts,
        )
        watch(self.probe, [*spec.methods.values(), *spec.metrics.values()])
        with multiplying(spec.precision):
            if spec.batch is None:
                self.probe.choose_batch((len(spec.normalisation.mean), *spec.size))
        self._uploads = Uploads(self.probe.device)
        self._watch, self._reported_counts = Stopwatch(), replace(self.probe.counts)
        self._batchers = (self.probe.batcher, self.probe.scorer.batcher)
        self._smallest_size, self._told = self._size(), set[str]()
        self._facts = {
            label: MethodFacts(label, canonical_json(parameters(method)), self.probe.layer)
            for label, method in spec.methods.items()
        }

    def usage(self) -> Usage:
        """Return what was used since the previous call, the batch size if it has become smaller, and notes."""
        before, now = self._reported_counts, replace(self.probe.counts)
        self._reported_counts = now
        passes = {
            "forward": now.forwards - before.forwards,
            "head": now.head_passes - before.head_passes,
            "backward": now.backwards - before.backwards,
        }
        known, self._smallest_size = self._smallest_size, min(self._smallest_size, self._size())
        batch = self._smallest_size if self._smallest_size < known else None
        return Usage(self._watch.take(), passes, batch, self._notes())

    def _notes(self) -> tuple[str, ...]:
        """Return what the user should know and was not told yet."""
        notes = tuple(note for note in [self.probe.trouble] if note and note not in self._told)
        self._told.update(notes)
        return notes

    def _size(self) -> int:
        return min(batcher.size for batcher in self._batchers)

    def tables(self, chunk: DecodedChunk) -> Iterator[pa.Table]:
        """Explain a chunk and yield tables of rows, batch by batch; the last one holds failures of earlier stages."""
        return (table_of([rows], self.spec.schema) for rows in self.explained(chunk))

    def explained(self, chunk: DecodedChunk) -> Iterator[UnmadeRows]:
        """As `tables`, but leave it to the caller when, and in which thread, tables are made."""
        chunk = completed(chunk, self.spec.device)
        batch = ImageBatch(chunk.chunk.shard.name, chunk.chunk.ordinal, chunk.samples, chunk.pixels_NHWC)
        pieces = list(batch.pieces(images_together(self.probe.batcher.size, self.spec.passes)))
        for piece, following in zip(pieces, [*pieces[1:], None], strict=False):
            yield UnmadeRows(tuple(self._explain_piece(piece, following)), self.spec.schema)
        yield UnmadeRows(tuple(failure_row(failure, batch.chunk) for failure in chunk.failures), self.spec.schema)

    def _explain_piece(self, batch: ImageBatch, following: ImageBatch | None) -> list[Made]:
        """Explain a batch, while the pixels of the following one already go to the device."""
        self._uploads.expect(None if following is None else following.pixels_NHWC)
        with multiplying(self.spec.precision), device_failures_told([sample.key for sample in batch.samples]):
            return self._explain_labelled(batch)

    def _explain_labelled(self, batch: ImageBatch) -> list[Made]:
        """Explain the images with suitable labels and parts, and return failure rows for the others."""
        reasons = [self._problem(sample) for sample in batch.samples]
        pairs = zip(batch.samples, reasons, strict=True)
        rows = [batch.failed(sample, *reason) for sample, reason in pairs if reason is not None]
        return [*self._explain_bisecting(batch.where(np.array([reason is None for reason in reasons]))), *rows]

    def _problem(self, sample: DecodedSample) -> FailureReason | None:
        """Return why the annotations of an image do not fit the model; None if they do."""
        if problem := self._label_problem(sample):
            return FailureReason("label", problem)
        problem = (
            "" if sample.parts is None else parts_problem(sample.parts.given, self.spec.weights, self.spec.classes)
        )
        return FailureReason("parts", problem) if problem else None

    def _explain_bisecting(self, batch: ImageBatch) -> list[Made]:
        """Explain a batch; if that raises, halve it until the failing image is alone and the others are explained."""
        if not batch.samples:
            return []
        result = self._attempt(lambda: self._explain_batch(batch))
        if not isinstance(result, FailureReason):
            return result
        if len(batch.samples) == 1:
            return self._explain_single(batch, result)
        halves = batch.pieces(-(-len(batch.samples) // 2))
        return [row for half in halves for row in self._explain_bisecting(half)]

    def _attempt(self, work: Callable[[], Result]) -> Result | FailureReason:
        return attempted(work, self.probe.device)

    def _explain_single(self, image: ImageBatch, reason: FailureReason) -> list[Made]:
        """Explain an image that has failed alone: in smaller passes if memory ran out, then method by method."""
        sizes = [batcher.size for batcher in self._batchers]
        while reason.code == "out_of_memory" and narrow(self._batchers):
            result = self._attempt(lambda: self._explain_batch(image))
            if not isinstance(result, FailureReason):
                return result  # passes stay this small, because a full pass does not fit into memory
            reason = result
        for batcher, size in zip(self._batchers, sizes, strict=True):
            batcher.size = size  # only this image needs too much memory: restore the passes of the others
        shared = self._attempt(lambda: self._run_shared_pass(image))
        if isinstance(shared, FailureReason):
            return [image.failed(image.samples[0], *reason)]
        return [*shared.failed, *(row for label in self.spec.methods for row in self._run_single_method(shared, label))]

    def _run_single_method(self, shared: SharedPass, label: str) -> list[Made]:
        """Run one method on one image, and return error rows if it fails."""
        result = self._attempt(lambda: self._rows(shared, {label: self.spec.methods[label]}))
        if not isinstance(result, FailureReason):
            return result
        code = METHOD_ERROR if result.code == "model_error" else result.code
        return [failed_method_row(image, self._facts[label], code, result.detail) for image in shared.facts()]

    def _explain_batch(self, batch: ImageBatch) -> list[Made]:
        """Explain the images with finite logits, and return failure rows for the others."""
        shared = self._run_shared_pass(batch)
        return [*self._rows(shared, self.spec.methods), *shared.failed]

    def _run_shared_pass(self, batch: ImageBatch) -> SharedPass:
        """Run the forward pass that all methods share, and choose the targets of the images with finite logits."""
        keys = [sample.key for sample in batch.samples]
        with self._watch.timing("evidence"):
            observation = observe(self._pixels(batch), self.spec.methods, self.probe, keys)
            self._uploads.begin_expected()
            logits_IN = observation.logits_IN.cpu()  # all decisions are the host's: it waits for the pass once, here
        finite_I, logits_IN = logits_IN.isfinite().all(1), logits_IN.nan_to_num()
        labels = [sample.classes for sample in batch.samples]
        confidences_IN = self.spec.outputs.confidences(logits_IN) if self.spec.targets.above else None
        images_B, targets_B, rules = self.spec.targets.chosen(logits_IN, labels, confidences_IN)
        kept_B = finite_I[images_B]
        images_B, targets_B = images_B[kept_B], targets_B[kept_B]
        rules = [rule for rule, kept in zip(rules, kept_B.tolist(), strict=True) if kept]
        finite_N = finite_I.numpy()
        rows = batch.failed_where(~finite_N, "nonfinite", "the model's logits contain NaN or infinity")
        explained = np.isin(np.arange(len(keys)), images_B.numpy())
        unsure = f"no class has a confidence above {self.spec.targets.above}"
        rows += batch.failed_where(finite_N & ~explained, "no_target", unsure)
        pairs = Pairs(batch.rows(images_B.tolist()), logits_IN[images_B], images_B, targets_B, rules)
        pairs, missed = pairs.found(self.spec.outputs, self._facts.values())
        evidence = observation.evidence_of(pairs.images_B, pairs.targets_B) if pairs.rules else None
        return SharedPass(pairs, evidence, rows + missed)

    def _rows(self, shared: SharedPass, methods: Mapping[str, CamMethod]) -> list[Made]:
        """Run methods and metrics, and return one row per (image, target) and method, in this order."""
        return [self._rows_of_one_shape(part, methods) for part in shared.parts(methods)]

    def _rows_of_one_shape(self, shared: SharedPass, methods: Mapping[str, CamMethod]) -> Explained:
        assert shared.evidence is not None
        failures, pairs = Failures(), shared.pairs
        with self._watch.timing("methods"):
            explanations = explain_each(shared.evidence, methods, self.probe, failures)
            maps = host_arrays({label: map_Buv.float() for label, map_Buv in explanations.maps.items()})
        with self._watch.timing("metrics"):
            values = as_arrays(
                measure_each(explanations, self.spec.metrics, pairs.images.truth(pairs.targets_B), failures)
            )
        note_silent(failures, methods, maps, shared.evidence)
        facts = tuple(self._facts[label] for label in methods)
        return Explained(pairs.facts(shared.evidence.outputs), facts, maps, values, failures.reasons, self.spec.maps)

    def _pixels(self, batch: ImageBatch) -> Tensor:
        return self.spec.normalisation.apply(unit_pixels(self._uploads.sent(batch.pixels_NHWC)))

    def _label_problem(self, sample: DecodedSample) -> str:
        # the label of a regression is a value, not a class
        limit = self.spec.classes if self.spec.outputs.has_confidences else math.inf
        unknown = [label for label in sample.classes if label >= limit]
        if unknown:
            return f"label {unknown[0]}, but the model has {self.spec.classes} classes"
        return self.spec.targets.trouble(sample.classes)
