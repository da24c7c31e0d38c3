"""A run rehearsed on a few images: everything is done and counted, only the masked passes of the model are not run.

The Explainer of the run explains the sample with a stand-in for the model inside its Scorer, which costs nothing and
answers random logits (equal ones would give empty maps, and those are spared passes). What is left is the time of
everything else. A few of the passes of each size are run on the model as well and timed, between all the other work as
in the run, where the model finds the caches as cold; and what is done right after them is told from the rest.

Legend: P passes, C colours, (H, W) pixels, N classes.
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
from pipeline.model.scorer import Scorer

Thing = TypeVar("Thing")
PassShape = tuple[int, ...]

SHARED, SWEEP = "", "sweep"
"""Accounts beside those of methods and metrics, which have a prefix: the clean pass and the rows; changed images that
all metrics ask about together."""

_TIMINGS, _LEAST_TIMINGS = 9, 3
_TIMING_SECONDS = 6.0
"""Passes of each size are timed so often, or for so long."""


@dataclass
class Account:
    """What one method or metric, or what all share, took.

    Attributes:
        forwards, head_passes, backwards: in images.
        seconds: of everything but the passes that the stand-in answered.
        passes: those, by their shape (P, C, H, W).
    """

    forwards: float = 0
    head_passes: float = 0
    backwards: float = 0
    seconds: float = 0.0
    passes: Counter[PassShape] = field(default_factory=Counter)

    def model_seconds(self, each: Mapping[PassShape, float]) -> float:
        """Seconds of the passes that the stand-in answered, on the model."""
        return sum(count * each[shape] for shape, count in self.passes.items())


@dataclass(frozen=True)
class DryRun:
    """What explaining some images took.

    Attributes:
        images: images that were explained or failed.
        rows: the rows they gave; values of metrics and maps of masking methods in them are random.
        accounts: by name; "method " and "metric " stand before those of methods and metrics.
        asked: how many changed images each metric asked about in the common sweep; of equal ones the first counts.
    """

    images: int
    rows: pa.Table
    accounts: Mapping[str, Account]
    requested: Mapping[str, int]


class DryRunner:
    """An Explainer whose masked passes are answered by a stand-in, and every step of which is on an account."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._model_scorer = explainer.probe.scorer
        self._seen: dict[PassShape, Tensor] = {}
        self._passes: Counter[PassShape] = Counter()
        self._timings: defaultdict[PassShape, list[float]] = defaultdict(list)
        self._gaps: defaultdict[tuple[bool, PassShape], list[float]] = defaultdict(list)
        self._open = SHARED
        self._left = False, 0.0
        self._reset()

    def explain(self, chunk: DecodedChunk, images: int) -> DryRun:
        """Explain the first images of a chunk."""
        few = replace(chunk, samples=chunk.samples[:images], pixels_NHWC=chunk.pixels_NHWC[:images], failures=())
        probe, spec = self._explainer.probe, self._explainer.spec
        self._reset()
        probe.scorer = Scorer(self._answer, probe.counts, probe.normalisation, self._model_scorer.batcher)
        self._explainer.spec = replace(
            spec,
            methods={
                label: _around(method, self._method_on_account(f"method {label}"))
                for label, method in spec.methods.items()
            },
            metrics={
                label: _around(metric, self._metric_on_account(f"metric {label}", metric))
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
        """Median seconds of a pass of the model, for every shape that was asked for."""
        for shape, pixels_PCHW in self._seen.items():
            while len(self._timings[shape]) < _LEAST_TIMINGS:
                self._timings[shape].append(self._timed(pixels_PCHW))
        return {
            shape: statistics.median(timings[1:]) + self._cooling(shape)  # the first is slow
            for shape, timings in self._timings.items()
        }

    def _cooling(self, shape: PassShape) -> float:
        """How much longer the work between two passes takes after the model than after the stand-in."""
        after_model, after_stand_in = self._gaps[True, shape], self._gaps[False, shape]
        if not after_model or not after_stand_in:
            return 0.0
        return max(0.0, statistics.median(after_model) - statistics.median(after_stand_in))

    def _answer(self, pixels_PCHW: Tensor) -> Tensor:
        """Stand in for the model; the first passes of a size, and then fewer and fewer, are timed on the model too."""
        shape = tuple(pixels_PCHW.shape)
        self._accounts[self._open].passes[shape] += 1
        if shape not in self._seen:
            self._seen[shape] = pixels_PCHW.clone()
        timings, before = self._timings[shape], self._passes[shape]
        self._passes[shape] += 1
        self._gaps[self._left[0], shape].append(self._now() - self._left[1])
        timed = before & (before - 1) == 0 and len(timings) < _TIMINGS and sum(timings) < _TIMING_SECONDS
        if timed:
            timings.append(self._timed(pixels_PCHW))
        logits_PN = torch.rand(len(pixels_PCHW), self._explainer.spec.classes, device=pixels_PCHW.device)
        self._left = timed, self._now()
        return logits_PN

    def _timed(self, pixels_PCHW: Tensor) -> float:
        """Time one pass of the model; neither its time nor its images are on any account."""
        counts = replace(self._explainer.probe.counts)
        targets_P1 = torch.zeros(len(pixels_PCHW), 1, dtype=torch.long, device=pixels_PCHW.device)
        start = self._now()
        self._model_scorer.target_scores(lambda at_P: pixels_PCHW[: len(at_P)], targets_P1)
        seconds = self._now() - start
        self._began += seconds
        vars(self._explainer.probe.counts).update(vars(counts))
        return seconds

    def _reset(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._requested: Counter[str] = Counter()
        self._known: set[tuple[int, View]] = set()
        self._depth = 0
        self._left = False, self._now()
        self._counts = replace(self._explainer.probe.counts)
        self._began = self._now()
        self._open = SHARED
        self._accounts[SHARED] = Account()

    def _switch(self, name: str) -> None:
        """Close the open account and go on with another."""
        now, counts, account = self._now(), replace(self._explainer.probe.counts), self._accounts[self._open]
        account.seconds += now - self._began
        account.forwards += counts.forwards - self._counts.forwards
        account.head_passes += counts.head_passes - self._counts.head_passes
        account.backwards += counts.backwards - self._counts.backwards
        self._began, self._counts, self._open = now, counts, name
        self._accounts.setdefault(name, Account())

    def _charged(self, name: str, after: str, work: Callable[[], Tensor]) -> Tensor:
        """Do work on an account; what is done inside, like methods that a metric has drawn again, is on it too."""
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
        return lambda call, *given: self._charged(name, SWEEP, lambda: call(*given))

    def _metric_on_account(self, name: str, metric: Metric) -> Callable[..., Tensor]:
        def on_account(call: Callable[[ScoringBatch], Tensor], batch: ScoringBatch) -> Tensor:
            self._requested[name] += sum(self._newly_requested(batch, view) for view in metric.views())
            return self._charged(name, SHARED, lambda: call(batch))

        return on_account

    def _newly_requested(self, batch: ScoringBatch, view: View) -> int:
        """How many changed images a view asked about, unless another metric asked before."""
        if (id(batch), view) in self._known:
            return 0
        self._known.add((id(batch), view))
        requested_BMS = ~batch.scores(view).logits_BMS.isnan()
        return int((requested_BMS[batch.evidence.first_rows()] if view.scope == "image" else requested_BMS).sum())

    def _now(self) -> float:
        if self._explainer.probe.device.type == "cuda":
            torch.cuda.synchronize(self._explainer.probe.device)
        return time.perf_counter()


def _around(thing: Thing, wrap: Callable[..., Tensor]) -> Thing:
    """The same method or metric, with its parameters and its page, called through `wrap`."""
    kind: type[Any] = type(thing)

    def call(self: Any, *given: Any) -> Tensor:  # noqa: ANN401 - a method takes evidence and probe, a metric a trial
        return wrap(lambda *inner: kind.__call__(self, *inner), *given)

    wrapped: Thing = object.__new__(type(kind.__name__, (kind,), {"__call__": call}))
    vars(wrapped).update(vars(thing))
    return wrapped
