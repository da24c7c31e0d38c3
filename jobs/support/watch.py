"""What becomes of the news of a run: numbers, warnings, and where the time went."""

from jobs.support.console import err
from jobs.support.progress import Tally, emit
from pipeline.telemetry.bottleneck import Session, StageTimes
from pipeline.telemetry.events import Committed, Heartbeat

WORKER_DIED = "worker_died"
"""Failure code of images that ended their worker every time."""


class Watch:
    """Takes in the news of a session: counts them, adds up where the time went, and warns.

    Args:
        tally: what is counted.
        session: where the time goes.
        workers: so many workers are meant to be.
        shards: their names.
        json_events: whether warnings are events, or sentences.
    """

    def __init__(
        self, tally: Tally, session: Session, workers: int, shards: tuple[str, ...], *, json_events: bool
    ) -> None:
        self._tally, self._session, self._workers, self._shards = tally, session, workers, shards
        self._json = json_events

    def note(self, event: Heartbeat | Committed) -> None:
        """Take in one piece of news."""
        if isinstance(event, Heartbeat):
            self._tally.images += event.images
            return
        self._tally.chunks += event.ours
        self._tally.committed_images += event.images
        self._tally.committed_bytes += event.encoded_bytes
        self._tally.failures.update(event.failures)
        if self._session.note(event) and self._session.workers > self._workers:
            died = self._session.workers - self._workers
            self._warn("worker_replaced", f"a worker died and another took its place ({died} so far); look at memory "
                       "if this goes on", worker=event.worker)  # fmt: skip
        self._warn_of_chunk(event)
        if batch := event.usage.batch:
            self._warn("smaller_passes", f"memory ran out in a worker, whose passes now hold {batch} images: "
                       "give it more, or lower compute.batch", worker=event.worker, batch=batch)  # fmt: skip

    def _warn_of_chunk(self, event: Committed) -> None:
        place: dict[str, object] = {"shard": self._shards[event.shard], "chunk": event.chunk}
        name = f"chunk {event.chunk} of {place['shard']}"
        if event.isolated:
            self._warn("careful", f"an attempt at {name} ended early; it was explained image by image", **place)
        if poison := event.failures.get(WORKER_DIED):
            self._warn("poison_image", f"{poison} images of {name} ended their worker every time and are left out, as "
                       f"failures with code {WORKER_DIED}", images=poison, **place)  # fmt: skip

    def _warn(self, kind: str, message: str, **fields: object) -> None:
        if self._json:
            emit("warning", kind=kind, message=message, **fields)
        else:
            err.say(f"warning: {message}")


def session_fields(found: StageTimes | None) -> dict[str, object] | None:
    """Where the time of a session went, for programs; None when there was nothing to do."""
    if found is None:
        return None
    return {
        "seconds": round(found.length, 3),
        "workers": found.workers,
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in found.seconds.items()},
        "stage_shares": {stage: round(share, 4) for stage, share in found.shares.items()},
        "beside_seconds": {stage: round(seconds, 3) for stage, seconds in found.beside.items()},
        "bottleneck": found.bottleneck(),
    }
