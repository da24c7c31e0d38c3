"""Times cases in turn: a machine's speed drifts, so only cases that ran in the same rounds can be compared."""

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
"""The engine whose forward pass is the default unit: ours, in fp32 and uncompiled."""
_LONG = 100
"""Cases with more forward passes per image are long: the first passes warm them up, and few rounds suffice."""


@dataclass(frozen=True)
class BenchCase:
    """One case to time.

    Attributes:
        name: the task; the case of a peer has the name of our case of the same task.
        by: the library or engine that runs it.
        work: runs the task once.
        images: number of images that one run processes.
        forwards: most forward passes of one run, in images; 0 where it runs no model.
        counts: counts the forward passes that are run; None where it is always `forwards`.
        engine: name of the engine whose forward pass is the unit of this case.
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
        """Tell whether the case is timed in fewer rounds."""
        return self.forwards > _LONG * self.images


@dataclass(frozen=True)
class CaseTiming:
    """The seconds of a case, round by round, and the forward passes of each round, in images."""

    case: BenchCase
    rounds: tuple[float, ...]
    forwards: int

    @property
    def seconds(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def images_per_second(self) -> float:
        """Return the images per second."""
        return self.case.images / self.seconds

    @property
    def forwards_per_second(self) -> float:
        """Return the forward passes per second, each of one image."""
        return self.forwards / self.seconds

    def times(self, other: "CaseTiming") -> float:
        """Return how many times as fast this case is as another, per image: the median of the rounds' quotients."""
        quotients = [theirs / own for own, theirs in zip(self.rounds, other.rounds, strict=False)]
        return statistics.median(quotients) * self.case.images / other.case.images


def time_cases(
    cases: Sequence[BenchCase], rounds: int, long_rounds: int = 1, report: Callable[[str], None] = lambda _: None
) -> list[CaseTiming]:
    """Time cases in turn, round by round, long ones only in the first `long_rounds`; `report` gets the progress.

    Our cases run as in a worker, which keeps freed memory. The others run as in a process without that.
    """
    for case in cases:
        if not case.is_long:
            report(f"warming up {case.name} ({case.by})")
            case.work()
    taken: list[list[float]] = [[] for _ in cases]
    made = [case.forwards for case in cases]
    for turn in range(rounds):
        for i, case in enumerate(cases):
            if case.is_long and turn >= long_rounds:
                continue
            report(f"round {turn + 1} of {rounds}: {case.name} ({case.by})")
            seconds, made[i] = _once(case)
            taken[i].append(seconds)
    return [
        CaseTiming(case, tuple(seconds), made[i]) for i, (case, seconds) in enumerate(zip(cases, taken, strict=True))
    ]


def _once(case: BenchCase) -> tuple[float, int]:
    """Time one run, with nothing left over from the previous case, and count its forward passes."""
    gc.collect()
    ours = case.by.startswith(OURS)
    with kept_freed_memory() if ours else contextlib.nullcontext():
        if ours and not case.is_long:
            case.work()  # a worker already holds its memory
        before = case.counts.forwards if case.counts else 0
        _wait_for_device()  # it may still be busy with what was started before
        began = time.perf_counter()
        case.work()
        _wait_for_device()
        taken = time.perf_counter() - began
        made = case.counts.forwards - before if case.counts else case.forwards
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):  # a C library without malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
    return taken, made


def _wait_for_device() -> None:
    """Wait until a GPU, if there is one, has done what was started on it: work on it returns at once."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
