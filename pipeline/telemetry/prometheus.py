"""Counters of a run for monitoring: Ray exports them to Prometheus if its metrics are enabled.

An actor updates them once per event, not per image, which takes microseconds.
"""

from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from pipeline.telemetry.events import Committed, Heartbeat
from pipeline.telemetry.timers import EXPLAIN, HELD_UP, WAIT


class Counters:
    """The counters of one actor; their Prometheus names begin with `ray_camatlas_`."""

    def __init__(self, run_id: str) -> None:
        self._run = {"run_id": run_id}
        self.images = _counter("camatlas_images", "images explained")
        self.chunks = _counter("camatlas_chunks", "chunks committed")
        self.passes = _counter("camatlas_forwards", "images passed through the model", "kind")
        self.failures = _counter("camatlas_failures", "failure rows", "code")
        self.seconds = _counter("camatlas_busy_seconds", "seconds of workers and of reading, by stage", "stage")
        self.queue = Gauge(
            "camatlas_queue", "work units that wait in the worker; at 0 it waits for data", tag_keys=("run_id",)
        )
        self.busy = Gauge("camatlas_busy_share", "share of the time in which the model is in use", ("run_id",))

    def note(self, events: Iterable[Heartbeat | Committed]) -> None:
        """Count the events of a worker."""
        for item in events:
            if isinstance(item, Heartbeat):
                self.images.inc(item.images, self._run)
            else:
                self._note_chunk(item)

    def _note_chunk(self, chunk: Committed) -> None:
        self.chunks.inc(1, self._run)
        for code, count in chunk.failures.items():
            self.failures.inc(count, {**self._run, "code": code})
        for kind, passes in chunk.usage.passes.items():
            _add(self.passes, passes, {**self._run, "kind": kind})
        for stage, seconds in chunk.usage.seconds.items():
            _add(self.seconds, seconds, {**self._run, "stage": stage})
        self.queue.set(chunk.waiting, self._run)
        whole = sum(chunk.usage.seconds.get(stage, 0.0) for stage in (EXPLAIN, WAIT, HELD_UP))
        if whole:
            self.busy.set(chunk.usage.seconds.get(EXPLAIN, 0.0) / whole, self._run)


def _counter(name: str, meaning: str, *tags: str) -> Counter:
    return Counter(name, meaning, ("run_id", *tags))


def _add(counter: Counter, value: float, tags: dict[str, str]) -> None:
    """Add to a counter unless the value is zero, which Ray rejects."""
    if value > 0:
        counter.inc(value, tags)
