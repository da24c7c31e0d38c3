"""Attempts at chunks: finds images that kill their worker, and turns them into failure rows.

Ray restarts a worker that dies and gives it the same chunk again, without limit. So attempts are recorded in a process
that outlives the workers. A chunk whose last attempt did not finish is isolated: it is explained image by image. An
image at which two isolated attempts ended is quarantined: it is left out and becomes a failure row. The other rows do
not change, because no row depends on the other images of its chunk.
"""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.data.decode import DecodedChunk
from pipeline.data.sources.shards import Failure
from pipeline.errors import StalledError
from pipeline.run.ledger import ENDS, Attempt, Attempts, Work

MOST_QUARANTINED = 8
"""Most images of a chunk that may be quarantined; with more, the images are not the cause."""


def pieces(chunk: DecodedChunk, attempt: Attempt, attempts: Attempts) -> Iterator[DecodedChunk]:
    """Yield what to explain of a chunk: all of it at once, or, after an unfinished attempt, image by image.

    Args:
        chunk: the chunk.
        attempt: how to attempt it, as `attempts.begin` said.
        attempts: is told of each image that is reached.

    Raises:
        StalledError: workers died at too many images of the chunk.
    """
    work = work_of(chunk)
    if not attempt.isolated:
        yield chunk
        return
    if len(attempt.quarantined) > MOST_QUARANTINED:
        raise StalledError(
            f"workers died at {len(attempt.quarantined)} images of chunk {work.chunk} of {chunk.chunk.shard.name}. "
            f"Bad images alone do not explain that. {_last(attempt)}Check memory (lower compute.batch or "
            "compute.workers), drivers and the model, then run the same command again to resume."
        )
    for image in range(len(chunk.samples)):
        if image not in attempt.quarantined:
            attempts.reach(work, image)
            yield replace(
                chunk, samples=chunk.samples[image : image + 1], pixels_NHWC=chunk.pixels_NHWC[image : image + 1],
                failures=(),
            )  # fmt: skip
    attempts.reach(work, None)  # the commit comes next: if it ends the worker, no image is the cause
    quarantined = tuple(_failure(chunk, image, attempt) for image in sorted(attempt.quarantined))
    yield replace(chunk, samples=(), pixels_NHWC=chunk.pixels_NHWC[:0], failures=(*chunk.failures, *quarantined))


def work_of(chunk: DecodedChunk) -> Work:
    """Return the step of explaining a chunk."""
    return Work("explain", chunk.chunk.shard.ordinal, chunk.chunk.ordinal)


def _failure(chunk: DecodedChunk, image: int, attempt: Attempt) -> Failure:
    reason = attempt.reasons.get(image, "it ran out of memory, or a library crashed")
    detail = f"the worker died at this image {ENDS} times: {reason}"
    sample, shard = chunk.samples[image], chunk.chunk.shard.name
    return Failure(sample.key, shard, "explain", "worker_died", detail, extent=sample.extent)


def _last(attempt: Attempt) -> str:
    """Say why the latest attempt that could tell ended; empty if none could."""
    return f"{[*attempt.reasons.values()][-1]}. " if attempt.reasons else ""
