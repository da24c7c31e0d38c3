"""A dry run on a few images: does and counts everything that a run does, except for the model's masked passes.

The run's Explainer explains the sample, but its Scorer calls a stand-in for the model. The stand-in costs nothing and
returns random logits (equal logits would give constant maps, and metrics skip passes for those). This measures the time
of all work except masked passes. A few passes of each shape also run on the model and are timed, in between the other
work, so that caches are as cold as in the run. The work right after such a pass is timed separately, because it finds
cold caches, too.

Legend: P images of a pass, C colours, (H, W) pixels, N classes.
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa
import torch
from torch import Tensor

from pipeline.data.decode import DecodedChunk
from pipeline.explain.explainer import Explainer
from pipeline.metrics import Metric, ScoringBatch
from pipeline.metrics.views import View
from pipeline.model.arithmetic import multiplying
from pipeline.model.scorer import Scorer

T = TypeVar("T")
PassShape = tuple[int, ...]

SHARED, SWEEP = "", "sweep"
"""Names of the two accounts that do not belong to one method or metric: the clean pass and making rows; and the scoring
of masked images, which all metrics share."""

_MAX_TIMINGS, _MIN_TIMINGS = 9, 3
"""Maximum and minimum number of passes to time per shape."""
_TIMING_SECONDS = 6.0
"""Passes of a shape are no longer timed once their timings add up to this."""


@dataclass
class Account:
    """The cost of one method, one metric, or of work that all share.

    Attributes:
        forwards, head_passes, backwards: number of images passed.
        seconds: time of everything except the passes that ran on the stand-in.
        passes: number of passes on the stand-in, by shape (P, C, H, W).
    """

    forwards: float = 0
    head_passes: float = 0
    backwards: float = 0
    seconds: float = 0.0
    passes: Counter[PassShape] = field(default_factory=Counter)

    def model_seconds(self, pass_seconds: Mapping[PassShape, float]) -> float:
        """Return the seconds that the passes on the stand-in would take on the model."""
        return sum(count * pass_seconds[shape] for shape, count in self.passes.items())


@dataclass(frozen=True)
class DryRun:
    """The result of explaining some images with the stand-in.

    Attributes:
        images: images that were explained or failed.
        rows: their rows; metric values and the maps of masking methods are random.
        accounts: by name, which is prefixed with "method " or "metric " for methods and metrics.
        requested: number of masked images that each metric requested from the shared scoring; an image that several
            metrics request is counted for the first.
    """

    images: int
    rows: pa.Table
    accounts: Mapping[str, Account]
    requested: Mapping[str, int]


class DryRunner:
    """Runs an Explainer with a stand-in for its masked passes, and assigns every step to an account."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._model_scorer = explainer.probe.scorer
        self._inputs: dict[PassShape, Tensor] = {}
        self._passes: Counter[PassShape] = Counter()
        self._timings: defaultdict[PassShape, list[float]] = defaultdict(list)
        self._gaps: defaultdict[tuple[bool, PassShape], list[float]] = defaultdict(list)
        self._account = SHARED
        self._last_pass = False, 0.0
        self._reset()

    def explain(self, chunk: DecodedChunk, images: int) -> DryRun:
        """Explain the first images of a chunk."""
        few = replace(chunk, samples=chunk.samples[:images], pixels_NHWC=chunk.pixels_NHWC[:images], failures=())
        probe, spec = self._explainer.probe, self._explainer.spec
        self._reset()
        probe.scorer = Scorer(
            self._stand_in, probe.counts, probe.normalisation, self._model_scorer.batcher, probe.outputs
        )
        self._explainer.spec = replace(
            spec,
            methods={
                label: _wrap_call(method, self._method_on_account(f"method {label}"))
                for label, method in spec.methods.items()
            },
            metrics={
                label: _wrap_call(metric, self._metric_on_account(f"metric {label}", metric))
                for label, metric in spec.metrics.items()
            },
        )
        try:
            tables = list(self._explainer.tables(few))
        finally:
            probe.scorer, self._explainer.spec = self._model_scorer, spec
        self._switch(SHARED)
        return DryRun(len(few.samples), pa.concat_tables(tables), self._accounts, self._requested)

    def pass_seconds(self) -> dict[PassShape, float]:
        """Return the median seconds of a pass on the model, for every shape that occurred."""
        with multiplying(self._explainer.spec.precision):
            for shape, pixels_PCHW in self._inputs.items():
                while len(self._timings[shape]) < _MIN_TIMINGS:
                    self._timings[shape].append(self._timed(pixels_PCHW))
        return {
            shape: statistics.median(timings[1:]) + self._cold_cache_seconds(shape)  # the first is slow
            for shape, timings in self._timings.items()
        }

    def _cold_cache_seconds(self, shape: PassShape) -> float:
        """Return how much longer the work between two passes takes after a pass on the model than on the stand-in."""
        after_model, after_stand_in = self._gaps[True, shape], self._gaps[False, shape]
        if not after_model or not after_stand_in:
            return 0.0
        return max(0.0, statistics.median(after_model) - statistics.median(after_stand_in))

    def _stand_in(self, pixels_PCHW: Tensor) -> Tensor:
        """Return random logits; also time passes 1, 2, 3, 5, 9, 17, ... of each shape on the model, up to a limit."""
        shape = tuple(pixels_PCHW.shape)
        self._accounts[self._account].passes[shape] += 1
        if shape not in self._inputs:
            self._inputs[shape] = pixels_PCHW.clone()
        timings, before = self._timings[shape], self._passes[shape]
        self._passes[shape] += 1
        self._gaps[self._last_pass[0], shape].append(self._now() - self._last_pass[1])
        timed = before & (before - 1) == 0 and len(timings) < _MAX_TIMINGS and sum(timings) < _TIMING_SECONDS
        if timed:
            timings.append(self._timed(pixels_PCHW))
        logits_PN = torch.rand(len(pixels_PCHW), self._explainer.spec.classes, device=pixels_PCHW.device)
        self._last_pass = timed, self._now()
        return logits_PN

    def _timed(self, pixels_PCHW: Tensor) -> float:
        """Time one pass on the model, without adding its time or images to an account."""
        counts = replace(self._explainer.probe.counts)
        targets_P1 = torch.zeros(len(pixels_PCHW), 1, dtype=torch.long, device=pixels_PCHW.device)
        start = self._now()
        self._model_scorer.target_scores(lambda rows: pixels_PCHW[: len(rows.index_P)], targets_P1)
        seconds = self._now() - start
        self._started += seconds
        vars(self._explainer.probe.counts).update(vars(counts))
        return seconds

    def _reset(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._requested: Counter[str] = Counter()
        self._known: set[tuple[int, View]] = set()
        self._depth = 0
        self._last_pass = False, self._now()
        self._counts = replace(self._explainer.probe.counts)
        self._started = self._now()
        self._account = SHARED
        self._accounts[SHARED] = Account()

    def _switch(self, name: str) -> None:
        """Close the current account and continue with another."""
        now, counts, account = self._now(), replace(self._explainer.probe.counts), self._accounts[self._account]
        account.seconds += now - self._started
        account.forwards += counts.forwards - self._counts.forwards
        account.head_passes += counts.head_passes - self._counts.head_passes
        account.backwards += counts.backwards - self._counts.backwards
        self._started, self._counts, self._account = now, counts, name
        self._accounts.setdefault(name, Account())

    def _charged(self, name: str, after: str, work: Callable[[], Tensor]) -> Tensor:
        """Do work on an account; nested work, such as a method that a metric runs again, is charged to it, too."""
        if self._depth:
            return work()
        self._switch(name)
        self._depth += 1
        try:
            return work()
        finally:
            self._depth -= 1
            self._switch(after)

    def _method_on_account(self, name: str) -> Callable[..., Tensor]:
        return lambda call, *args: self._charged(name, SWEEP, lambda: call(*args))

    def _metric_on_account(self, name: str, metric: Metric) -> Callable[..., Tensor]:
        def on_account(call: Callable[[ScoringBatch], Tensor], batch: ScoringBatch) -> Tensor:
            self._requested[name] += sum(self._newly_requested(batch, view) for view in metric.views())
            return self._charged(name, SHARED, lambda: call(batch))

        return on_account

    def _newly_requested(self, batch: ScoringBatch, view: View) -> int:
        """Return the number of masked images that a view requests, or 0 if another metric requested them before."""
        if (id(batch), view) in self._known:
            return 0
        self._known.add((id(batch), view))
        requested_BMS = ~batch.scores(view).logits_BMS.isnan()
        return int((requested_BMS[batch.evidence.first_rows()] if view.scope == "image" else requested_BMS).sum())

    def _now(self) -> float:
        if self._explainer.probe.device.type == "cuda":
            torch.cuda.synchronize(self._explainer.probe.device)
        return time.perf_counter()


def _wrap_call(thing: T, wrap: Callable[..., Tensor]) -> T:
    """Return a copy of a method or metric whose calls go through `wrap`; its class keeps name and parameters."""
    kind: type[Any] = type(thing)

    def call(self: Any, *args: Any) -> Tensor:  # noqa: ANN401 - a method takes evidence and probe, a metric a batch
        return wrap(lambda *inner_args: kind.__call__(self, *inner_args), *args)

    wrapped: T = object.__new__(type(kind.__name__, (kind,), {"__call__": call}))
    vars(wrapped).update(vars(thing))
    return wrapped
