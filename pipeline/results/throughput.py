"""Throughput of a run from the publication times of its parts: pauses, rates and stragglers. Times are in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

LONG = 10.0
"""A gap or delay this many times the median is a pause or a straggler."""
_MIN_PAUSE = 300.0
_FEW_PARTS = 3
_FIRST_PARTS_SECONDS = 1800.0
_MIN_DELAY = 60.0
_WINDOW = 300.0
_WINDOW_PARTS = 8
"""The recent rate covers at least the last `_WINDOW` seconds and this many parts."""
_MIN_DELAYS = 5
"""With fewer delays, the median is not meaningful."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Rate:
    """A number of images committed within a number of seconds."""

    images: int
    seconds: float

    @property
    def a_second(self) -> float | None:
        """Return images per second; None for less than one second."""
        return self.images / self.seconds if self.seconds >= 1 else None


@dataclass(frozen=True)
class Straggler:
    """A chunk that took far longer than usual, or a shard that stopped while others continue.

    Attributes:
        kind: "slow" for a late chunk, "behind" for a shard whose next chunk is overdue.
        shard, chunk: ordinals of the late or overdue chunk.
        seconds: time since the shard's previous chunk, without pauses of the run.
    """

    kind: Literal["slow", "behind"]
    shard: int
    chunk: int
    seconds: float


@dataclass(frozen=True)
class Throughput:
    """The publication times of a run's parts.

    Attributes:
        parts: time and number of images of every part, in order of time.
        pauses: begin and end of gaps between parts that are so long that the run must have been stopped.
        usual: median time between two parts.
    """

    parts: tuple[tuple[float, int], ...]
    pauses: tuple[Span, ...]
    usual: float

    @classmethod
    def of(cls, parts: Sequence[tuple[float, int]]) -> "Throughput":
        """Sort the parts and find the pauses of a run; `parts` may have any order."""
        ordered = tuple(sorted(parts))
        times = [time for time, _ in ordered]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        usual = median(gaps) if gaps else 0.0
        longest = max(_MIN_PAUSE, LONG * usual)
        return cls(ordered, tuple(span for span in pairwise(times) if span[1] - span[0] > longest), usual)

    @property
    def quiet_after(self) -> float:
        """Return the seconds without a write after which a run may have ended; longer for the first parts."""
        return max(_MIN_PAUSE, LONG * self.usual) if len(self.parts) > _FEW_PARTS else _FIRST_PARTS_SECONDS

    def overall(self) -> Rate:
        """Return the rate of the whole run, without pauses and the first part after each pause."""
        if not self.parts:
            return Rate(0, 0.0)
        after_pause = {end for _, end in self.pauses}
        images = sum(images for time, images in self.parts[1:] if time not in after_pause)
        spent = self.parts[-1][0] - self.parts[0][0] - sum(end - begin for begin, end in self.pauses)
        return Rate(images, spent)

    def recent(self, now: float) -> Rate:
        """Return the rate of the last minutes up to now, beginning after the last pause at the earliest."""
        if not self.parts:
            return Rate(0, 0.0)
        enough = self.parts[-min(len(self.parts), _WINDOW_PARTS + 1)][0]
        resumed = self.pauses[-1][1] if self.pauses else self.parts[0][0]
        began = max(resumed, min(now - _WINDOW, enough))
        return Rate(sum(images for time, images in self.parts if time > began), now - began)

    def without_pauses(self, span: Span) -> float:
        """Return the seconds of a span in which the run was not paused."""
        paused = (min(end, span[1]) - max(begin, span[0]) for begin, end in self.pauses)
        return span[1] - span[0] - sum(seconds for seconds in paused if seconds > 0)


def stragglers(
    shards: Mapping[int, Mapping[int, float]], open_shards: Sequence[int], throughput: Throughput
) -> list[Straggler]:
    """Find chunks and shards that are far slower than the rest, slowest first.

    Args:
        shards: publication time of each chunk of each shard.
        open_shards: shards that have begun and are not finished.
        throughput: of the whole run.
    """
    delays = [
        (shard, chunk + 1, (chunks[chunk], chunks[chunk + 1]))
        for shard, chunks in shards.items()
        for chunk in chunks
        if chunk + 1 in chunks and chunks[chunk + 1] >= chunks[chunk]
    ]
    if len(delays) < _MIN_DELAYS:
        return []
    longest = max(_MIN_DELAY, LONG * median(later - earlier for _, _, (earlier, later) in delays))
    newest = throughput.parts[-1][0]
    waits = [(shard, max(shards[shard]) + 1, (max(shards[shard].values()), newest)) for shard in open_shards]
    kinds: tuple[tuple[Literal["slow", "behind"], list[tuple[int, int, Span]]], ...] = (
        ("slow", delays),
        ("behind", waits),
    )
    found = [
        Straggler(kind, shard, chunk, throughput.without_pauses(span))
        for kind, spans in kinds
        for shard, chunk, span in spans
        if span[1] - span[0] > longest
    ]
    return sorted((one for one in found if one.seconds > longest), key=lambda one: -one.seconds)
