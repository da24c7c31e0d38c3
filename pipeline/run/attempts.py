"""Attempts at chunks: finds images that kill their worker, and turns them into failure rows.

Ray restarts a worker that dies and gives it the same chunk again, without limit. So attempts are recorded in a process
that outlives the workers. A chunk whose last attempt did not finish is isolated: it is explained image by image. An
image at which two isolated attempts ended is quarantined: it is left out and becomes a failure row. The other rows do
not change, because no row depends on the other images of its chunk.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from pipeline.data.decode import DecodedChunk
from pipeline.data.sources.shards import Failure
from pipeline.errors import StalledError

ENDS = 2
"""An image is quarantined after this many isolated attempts end at it: a single end may be an unrelated kill."""
MOST_QUARANTINED = 8
"""Most images of a chunk that may be quarantined; with more, the images are not the cause."""


class Work(NamedTuple):
    """One step that is attempted: reading or explaining a chunk, named by the ordinals of its shard and of itself."""

    stage: Literal["read", "explain"]
    shard: int
    chunk: int


@dataclass(frozen=True)
class Attempt:
    """State of a chunk at the start of an attempt: whether to isolate its images, and which are quarantined."""

    isolated: bool = False
    quarantined: frozenset[int] = frozenset()


class Attempts(Protocol):
    """Records attempts, and outlives the workers that make them."""

    def begin(self, work: Work) -> Attempt:
        """Record that a step begins, and return how to attempt it."""
        ...

    def reach(self, work: Work, image: int | None) -> None:
        """Record that an isolated attempt has reached an image, or has passed all of them (None)."""
        ...

    def end(self, work: Work) -> None:
        """Forget a finished step."""
        ...


@dataclass
class Ledger:
    """Attempts, kept in the memory of one process."""

    _begun: dict[Work, int | None] = field(default_factory=dict)
    """Steps in progress, and the image that the latest isolated attempt has reached."""
    _ends: dict[Work, Counter[int]] = field(default_factory=dict)
    """How many isolated attempts ended at each image."""

    def begin(self, work: Work) -> Attempt:
        """Record that a step begins, and return how to attempt it."""
        isolated = work in self._begun
        ends = self._ends.setdefault(work, Counter())
        reached = self._begun.get(work)
        if reached is not None:
            ends[reached] += 1
        self._begun[work] = None
        return Attempt(isolated, frozenset(image for image, times in ends.items() if times >= ENDS))

    def reach(self, work: Work, image: int | None) -> None:
        """Record that an isolated attempt has reached an image, or has passed all of them (None)."""
        self._begun[work] = image

    def end(self, work: Work) -> None:
        """Forget a finished step."""
        self._begun.pop(work, None)
        self._ends.pop(work, None)

    def under_way(self) -> list[Work]:
        """List the steps in progress."""
        return sorted(self._begun)


def pieces(chunk: DecodedChunk, attempts: Attempts) -> Iterator[DecodedChunk]:
    """Yield what to explain of a chunk: all of it at once, or, after an unfinished attempt, image by image.

    Raises:
        StalledError: workers died at too many images of the chunk.
    """
    work = work_of(chunk)
    attempt = attempts.begin(work)
    if not attempt.isolated:
        yield chunk
        return
    if len(attempt.quarantined) > MOST_QUARANTINED:
        raise StalledError(
            f"workers died at {len(attempt.quarantined)} images of chunk {work.chunk} of {chunk.chunk.shard.name}. "
            "Bad images alone do not explain that. Check memory (lower compute.batch or compute.workers), drivers and "
            "the model, then run the same command again to resume."
        )
    for image in range(len(chunk.samples)):
        if image not in attempt.quarantined:
            attempts.reach(work, image)
            yield replace(
                chunk, samples=chunk.samples[image : image + 1], pixels_NHWC=chunk.pixels_NHWC[image : image + 1],
                failures=(),
            )  # fmt: skip
    attempts.reach(work, None)  # the commit comes next: if it ends the worker, no image is the cause
    quarantined = tuple(_failure(chunk, image) for image in sorted(attempt.quarantined))
    yield replace(chunk, samples=(), pixels_NHWC=chunk.pixels_NHWC[:0], failures=(*chunk.failures, *quarantined))


def work_of(chunk: DecodedChunk) -> Work:
    """Return the step of explaining a chunk."""
    return Work("explain", chunk.chunk.shard.ordinal, chunk.chunk.ordinal)


def _failure(chunk: DecodedChunk, image: int) -> Failure:
    detail = f"the worker died at this image {ENDS} times: it ran out of memory, or a library crashed"
    return Failure(chunk.samples[image].key, chunk.chunk.shard.name, "explain", "worker_died", detail)
