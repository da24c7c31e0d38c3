"""The rhythm in which parts appear: pauses of a run, its rates, and shards that stay behind. Times are in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

LONG = 10.0
"""So many times as long as usual is conspicuous."""
_LEAST_PAUSE = 300.0
_FEW = 3
_FIRST_PATIENCE = 1800.0
_LEAST_DELAY = 60.0
_WINDOW = 300.0
_WINDOW_PARTS = 8
"""The rate of now counts the last minutes, and at least so many parts."""
_ENOUGH = 5
"""Fewer delays tell nothing of what is usual."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Rate:
    """Images that were committed in so many seconds."""

    images: int
    seconds: float

    @property
    def a_second(self) -> float | None:
        """Images per second; None where hardly any time passed."""
        return self.images / self.seconds if self.seconds >= 1 else None


@dataclass(frozen=True)
class Straggler:
    """A chunk that came late, or a shard of which nothing comes while others go on.

    Attributes:
        shard, chunk: ordinals; the chunk that came late, or the one that is waited for.
        seconds: since the chunk before it, pauses of the run left out.
    """

    kind: Literal["slow", "behind"]
    shard: int
    chunk: int
    seconds: float


@dataclass(frozen=True)
class Throughput:
    """When parts appeared.

    Attributes:
        parts: time and images of every part, in order of time.
        pauses: times between two parts that are far longer than usual: nothing ran.
        usual: median time between two parts.
    """

    parts: tuple[tuple[float, int], ...]
    pauses: tuple[Span, ...]
    usual: float

    @classmethod
    def of(cls, parts: Sequence[tuple[float, int]]) -> "Throughput":
        """Find the pauses of a run; `parts` may have any order."""
        ordered = tuple(sorted(parts))
        times = [time for time, _ in ordered]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        usual = median(gaps) if gaps else 0.0
        longest = max(_LEAST_PAUSE, LONG * usual)
        return cls(ordered, tuple(span for span in pairwise(times) if span[1] - span[0] > longest), usual)

    @property
    def quiet_after(self) -> float:
        """Seconds without any news after which a run may have ended; the first chunks may take long."""
        return max(_LEAST_PAUSE, LONG * self.usual) if len(self.parts) > _FEW else _FIRST_PATIENCE

    def overall(self) -> Rate:
        """The rate of the whole run, pauses and the first part after each left out."""
        if not self.parts:
            return Rate(0, 0.0)
        after_pause = {end for _, end in self.pauses}
        images = sum(images for time, images in self.parts[1:] if time not in after_pause)
        spent = self.parts[-1][0] - self.parts[0][0] - sum(end - begin for begin, end in self.pauses)
        return Rate(images, spent)

    def recent(self, now: float) -> Rate:
        """The rate of the last minutes up to now, not reaching back over a pause."""
        if not self.parts:
            return Rate(0, 0.0)
        enough = self.parts[-min(len(self.parts), _WINDOW_PARTS + 1)][0]
        resumed = self.pauses[-1][1] if self.pauses else self.parts[0][0]
        began = max(resumed, min(now - _WINDOW, enough))
        return Rate(sum(images for time, images in self.parts if time > began), now - began)

    def without_pauses(self, span: Span) -> float:
        """Seconds of a span in which the run was not paused."""
        paused = (min(end, span[1]) - max(begin, span[0]) for begin, end in self.pauses)
        return span[1] - span[0] - sum(seconds for seconds in paused if seconds > 0)


def stragglers(
    shards: Mapping[int, Mapping[int, float]], open_shards: Sequence[int], throughput: Throughput
) -> list[Straggler]:
    """Find what is far slower than the rest, slowest first.

    Args:
        shards: when each chunk of each shard appeared.
        open_shards: those that have begun and are not finished.
        rhythm: of the whole run.
    """
    delays = [
        (shard, chunk + 1, (chunks[chunk], chunks[chunk + 1]))
        for shard, chunks in shards.items()
        for chunk in chunks
        if chunk + 1 in chunks and chunks[chunk + 1] >= chunks[chunk]
    ]
    if len(delays) < _ENOUGH:
        return []
    longest = max(_LEAST_DELAY, LONG * median(later - earlier for _, _, (earlier, later) in delays))
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
