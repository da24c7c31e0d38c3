"""Turn the events of a run into counts, stage times and warnings."""

from collections.abc import Callable

from jobs.support.console import err
from jobs.support.progress import Tally, emit
from pipeline.data.depth import Depth
from pipeline.telemetry.bottleneck import Session, StageTimes
from pipeline.telemetry.events import Committed, Heartbeat

WORKER_DIED = "worker_died"
"""Failure code of images that killed their worker in every attempt."""

_FIRST_LABELS = 64
"""Number of labelled images after which labels are judged for the first time; then whenever it has doubled."""


class Watch:
    """Processes the events of a session: updates the tally and the stage times, and prints warnings.

    Args:
        tally: counts of the session.
        session: stage times of the session.
        workers: number of workers that the run was started with.
        shards: names of the shards, by ordinal.
        json_events: whether warnings are printed as JSON events or as text.
        name: names a class of the model; None if an image does not have one label and one prediction.
    """

    def __init__(
        self,
        tally: Tally,
        session: Session,
        workers: int,
        shards: tuple[str, ...],
        *,
        json_events: bool,
        name: Callable[[int], str] | None = None,
    ) -> None:
        from pipeline.audit.label_order import LabelOrder  # importing numpy takes a moment, and --help should not

        self._tally, self._session, self._workers, self._shards = tally, session, workers, shards
        self._json = json_events
        self._depth, self._depth_is_reported = Depth(), False
        self._name, self._labels, self._labels_judged_at = name, LabelOrder(), _FIRST_LABELS
        self._told = set[str]()

    def wait_for_gpus(self, missing: str, seconds: int) -> None:
        """Warn that GPUs are missing, if any are: the run begins on those that are there."""
        if missing:
            self._warn("waiting_for_gpus", f"{missing}. The run begins on what is there, and ends after {seconds} s "
                       "without progress (compute.stall_seconds)", seconds=seconds)  # fmt: skip

    def note(self, event: Heartbeat | Committed) -> None:
        """Process one event."""
        if isinstance(event, Heartbeat):
            self._tally.images += event.images
            return
        self._tally.chunks += event.ours
        self._tally.committed_images += event.images
        self._tally.committed_bytes += event.encoded_bytes
        self._tally.failures.update(event.failures)
        new_worker = self._session.note(event)
        self._tally.working_since = self._session.working_since
        if new_worker and self._session.workers > self._workers:
            died = self._session.workers - self._workers
            self._warn("worker_replaced", f"a worker died and was replaced ({died} so far); if this continues, check "
                       "the memory of the workers", worker=event.worker)  # fmt: skip
        self._warn_of_chunk(event)
        self._warn_of_low_values(event)
        self._labels = self._labels.with_more(event.labelled, event.confidence)
        if self._labels.images >= self._labels_judged_at:
            self._labels_judged_at = 2 * self._labels.images
            self._warn_of_labels()
        for note in set(event.usage.notes) - self._told:
            self._told.add(note)
            self._warn("note_of_worker", note, worker=event.worker)
        if batch := event.usage.batch:
            self._warn("smaller_passes", f"a worker ran out of memory; its passes now hold {batch} images: add memory, "
                       "or lower compute.batch", worker=event.worker, batch=batch)  # fmt: skip

    def end(self) -> None:
        """Judge what can be judged only when all chunks are there."""
        self._warn_of_labels()

    def _warn_of_labels(self) -> None:
        """Warn once, as soon as the labels have turned out not to number the classes as the model does."""
        message = self._labels.warning(self._name) if self._name else ""
        if message:
            self._name = None
            images, right = self._labels.images, self._labels.right
            self._warn("label_order", f"of {images} labelled images so far, {right} are predicted as labelled: "
                       f"{message}", images=images, right=right)  # fmt: skip

    def _warn_of_chunk(self, event: Committed) -> None:
        place: dict[str, object] = {"shard": self._shards[event.shard], "chunk": event.chunk}
        name = f"chunk {event.chunk} of {place['shard']}"
        if event.isolated:  # programs read the kind "careful": it must not change
            why = f": {'; '.join(event.reasons)}" if event.reasons else ""
            self._warn("careful", f"an attempt at {name} ended early{why}; its images were explained one by one",
                       **place, reasons=event.reasons)  # fmt: skip
        if poison := event.failures.get(WORKER_DIED):
            self._warn("poison_image", f"{poison} images of {name} killed their worker in every attempt; they are "
                       f"recorded as failures with code {WORKER_DIED}", images=poison, **place)  # fmt: skip

    def _warn_of_low_values(self, event: Committed) -> None:
        """Warn once, as soon as the 16-bit images of the session have turned out to be almost black."""
        self._depth += Depth(event.deep_images, event.deep_peak)
        message = self._depth.warning()
        if message and not self._depth_is_reported:
            self._depth_is_reported = True
            self._warn("low_16_bit_values", message, images=self._depth.images, largest=self._depth.peak)

    def _warn(self, kind: str, message: str, **fields: object) -> None:
        if self._json:
            emit("warning", kind=kind, message=message, **fields)
        else:
            err.say(f"warning: {message}")


def session_fields(times: StageTimes | None) -> dict[str, object] | None:
    """Return the field `session` of the `end` event; None when there was nothing to do."""
    if times is None:
        return None
    return {
        "seconds": round(times.length, 3),
        "workers": times.workers,
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in times.seconds.items()},
        "stage_shares": {stage: round(share, 4) for stage, share in times.shares.items()},
        "beside_seconds": {stage: round(seconds, 3) for stage, seconds in times.beside.items()},
        "bottleneck": times.bottleneck(),
    }
