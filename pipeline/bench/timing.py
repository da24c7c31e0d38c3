"""Timing in turn: a machine's speed drifts, so that only what ran side by side can be compared."""

import contextlib
import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pipeline.model.counts import Counts
from pipeline.model.memory import kept_freed_memory

OURS = "camatlas"
ENGINE = f"{OURS} fp32"
"""Whose forward pass is the measure where nothing else is said: our engine's, uncompiled."""
_LONG = 100
"""Cases of more forward passes an image are warm after the first few, and long enough to be timed in fewer rounds."""


@dataclass(frozen=True)
class BenchCase:
    """Something to time.

    Attributes:
        name: what is done; a peer's case has the name of ours that does the same.
        by: who does it.
        work: does it once.
        images: how many images that is.
        forwards: forward passes it needs at most, in images; 0 where it runs no model.
        counts: what counts those it makes; None where it makes as many as it needs.
        engine: whose forward pass it is measured in.
    """

    name: str
    by: str
    work: Callable[[], object]
    images: int
    forwards: int
    counts: Counts | None = None
    engine: str = ENGINE

    @property
    def is_long(self) -> bool:
        """Whether it is timed in fewer rounds."""
        return self.forwards > _LONG * self.images


@dataclass(frozen=True)
class CaseTiming:
    """What a case took, round by round, in seconds, and the forward passes it made each time, in images."""

    case: BenchCase
    rounds: tuple[float, ...]
    forwards: int

    @property
    def seconds(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def images_per_second(self) -> float:
        """Images a second."""
        return self.case.images / self.seconds

    @property
    def forwards_per_second(self) -> float:
        """Forward passes of one image a second."""
        return self.forwards / self.seconds

    def times(self, other: "CaseTiming") -> float:
        """How many times as fast as another case, per image: the median of the rounds' quotients."""
        quotients = [theirs / own for own, theirs in zip(self.rounds, other.rounds, strict=False)]
        return statistics.median(quotients) * self.case.images / other.case.images


def time_cases(
    cases: Sequence[BenchCase], rounds: int, long_rounds: int = 1, tell: Callable[[str], None] = lambda _: None
) -> list[CaseTiming]:
    """Time cases in turn, round by round, long ones in the first `long_rounds` only; `tell` hears of the progress.

    Ours run as they do in a worker, which keeps freed memory; the others as in a process of their own.
    """
    for case in cases:
        if not case.is_long:
            tell(f"warming up {case.name} ({case.by})")
            case.work()
    taken: list[list[float]] = [[] for _ in cases]
    made = [case.forwards for case in cases]
    for turn in range(rounds):
        for i, case in enumerate(cases):
            if case.is_long and turn >= long_rounds:
                continue
            tell(f"round {turn + 1} of {rounds}: {case.name} ({case.by})")
            seconds, made[i] = _once(case)
            taken[i].append(seconds)
    return [
        CaseTiming(case, tuple(seconds), made[i]) for i, (case, seconds) in enumerate(zip(cases, taken, strict=True))
    ]


def _once(case: BenchCase) -> tuple[float, int]:
    """Seconds of one run, with nothing left over from the case before, and its forward passes."""
    gc.collect()
    ours = case.by.startswith(OURS)
    with kept_freed_memory() if ours else contextlib.nullcontext():
        if ours and not case.is_long:
            case.work()  # a worker got its memory long ago
        before = case.counts.forwards if case.counts else 0
        began = time.perf_counter()
        case.work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken = time.perf_counter() - began
        made = case.counts.forwards - before if case.counts else case.forwards
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
    return taken, made
