"""What kills its worker: attempts are remembered outside the workers, and the image to blame becomes a failure row.

A worker that dies is started anew and gets the same chunk again, without end. So attempts are noted where the death of
a worker does not reach. A chunk that was begun and never ended is taken up image by image; an image at which two such
careful attempts ended is left out as a failure. The other rows are what they would have been: none depends on the
images beside it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from pipeline.data.decode import DecodedChunk
from pipeline.data.sources.shards import Failure
from pipeline.errors import StalledError

ENDS = 2
"""So many careful attempts must end at an image before it is blamed: one may be anybody's kill."""
MOST_QUARANTINED = 8
"""When more images of one chunk are to blame, it is not the images."""


class Work(NamedTuple):
    """What is attempted: a chunk is read, or explained; ordinals of its shard and of itself."""

    stage: Literal["read", "explain"]
    shard: int
    chunk: int


@dataclass(frozen=True)
class Attempt:
    """What is known of a chunk as it is begun: whether earlier attempts ended early, and the images to blame."""

    isolated: bool = False
    quarantined: frozenset[int] = frozenset()


class Attempts(Protocol):
    """Remembers attempts; outlives the workers that make them."""

    def begin(self, work: Work) -> Attempt:
        """Note that a chunk is begun."""
        ...

    def reach(self, work: Work, image: int | None) -> None:
        """Note that a careful attempt is at an image, or past all of them."""
        ...

    def end(self, work: Work) -> None:
        """Forget a chunk that is done."""
        ...


@dataclass
class Ledger:
    """Attempts in the memory of one process."""

    _begun: dict[Work, int | None] = field(default_factory=dict)
    """Chunks under way, and the image that the latest careful attempt is at."""
    _ends: dict[Work, Counter[int]] = field(default_factory=dict)

    def begin(self, work: Work) -> Attempt:
        """Note that a chunk is begun."""
        isolated = work in self._begun
        ends = self._ends.setdefault(work, Counter())
        reached = self._begun.get(work)
        if reached is not None:
            ends[reached] += 1
        self._begun[work] = None
        return Attempt(isolated, frozenset(image for image, times in ends.items() if times >= ENDS))

    def reach(self, work: Work, image: int | None) -> None:
        """Note that a careful attempt is at an image, or past all of them."""
        self._begun[work] = image

    def end(self, work: Work) -> None:
        """Forget a chunk that is done."""
        self._begun.pop(work, None)
        self._ends.pop(work, None)

    def under_way(self) -> list[Work]:
        """List what was begun and has not ended."""
        return sorted(self._begun)


def pieces(chunk: DecodedChunk, attempts: Attempts) -> Iterator[DecodedChunk]:
    """Give what to explain of a chunk: all of it at once, or after an early end image by image.

    Raises:
        StalledError: the worker keeps dying, whatever the image.
    """
    work = work_of(chunk)
    attempt = attempts.begin(work)
    if not attempt.isolated:
        yield chunk
        return
    if len(attempt.quarantined) > MOST_QUARANTINED:
        raise StalledError(
            f"workers died at {len(attempt.quarantined)} images of chunk {work.chunk} of {chunk.chunk.shard.name}. "
            "That is more than bad images do: check memory (lower compute.batch or compute.workers), drivers and the "
            "model, then run the same command again to resume."
        )
    for image in range(len(chunk.samples)):
        if image not in attempt.quarantined:
            attempts.reach(work, image)
            yield replace(
                chunk, samples=chunk.samples[image : image + 1], pixels_NHWC=chunk.pixels_NHWC[image : image + 1],
                failures=(),
            )  # fmt: skip
    attempts.reach(work, None)  # committing is to come: whatever ends it, no image does
    quarantined = tuple(_failure(chunk, image) for image in sorted(attempt.quarantined))
    yield replace(chunk, samples=(), pixels_NHWC=chunk.pixels_NHWC[:0], failures=(*chunk.failures, *quarantined))


def work_of(chunk: DecodedChunk) -> Work:
    """Name the work that explaining a chunk is."""
    return Work("explain", chunk.chunk.shard.ordinal, chunk.chunk.ordinal)


def _failure(chunk: DecodedChunk, image: int) -> Failure:
    detail = f"the worker died at this image {ENDS} times; its memory or a library gave way"
    return Failure(chunk.samples[image].key, chunk.chunk.shard.name, "explain", "worker_died", detail)
