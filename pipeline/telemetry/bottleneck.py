"""Divides the time of a session into stages, finds the bottleneck, and names the setting that removes it.

A session's time is the sum over its workers that had work, each from the start of the session to its end. From its
first work unit on, a worker reports what its model did at every moment (`pipeline.telemetry.timers`). The time before
that counts as starting, the time after its last report as idle at the end, and the rest as lost with workers that died.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.telemetry.events import Committed
from pipeline.telemetry.timers import EXPLAIN, HELD_UP, PARTS, PUBLISH, READ, WAIT

_NOTABLE_SHARE = 0.2
"""A stage with at least this share of the time is reported as the bottleneck, even if explaining takes more."""
START, END, LOST, ROWS = "start", "end", "lost", "rows"
STAGES = {
    START: "starting",
    "evidence": "passes on the clean images",
    "methods": "methods",
    "metrics": "metrics",
    ROWS: "making rows",
    WAIT: "waiting for images",
    HELD_UP: "waiting for the store",
    END: "idle at the end",
    LOST: "lost with workers that died",
}
"""The stages of a worker's time with their descriptions, in the order of the report."""


@dataclass(frozen=True)
class Environment:
    """The settings of a session that bound its speed.

    Attributes:
        workers: actors that hold the model.
        shards: number of shards that were unfinished when the session began.
        device, precision: of the model.
    """

    workers: int
    shards: int
    device: str
    precision: str


@dataclass(frozen=True)
class StageTimes:
    """Seconds of all workers by stage; they add up to the session's length times its workers.

    Attributes:
        seconds: by stage, with the keys of `STAGES`.
        beside: seconds of reading and decoding, and of publishing, in parallel with the model.
        length: seconds of the session.
        workers: number of workers that had work.
        environment: settings of the session.
    """

    seconds: Mapping[str, float]
    beside: Mapping[str, float]
    length: float
    workers: int
    environment: Environment

    @property
    def shares(self) -> dict[str, float]:
        """Return each stage's share of the total, in [0, 1]."""
        whole = sum(self.seconds.values())
        return {stage: seconds / whole if whole else 0.0 for stage, seconds in self.seconds.items()}

    @property
    def explaining(self) -> float:
        """Return the share of the time in which models explained images."""
        return sum(self.shares[stage] for stage in (*PARTS, ROWS))

    def line(self) -> str:
        """Format the shares in one line, without those that round to 0 %."""
        stages = [f"{words} {_percent(self.shares[s])}" for s, words in STAGES.items() if self.shares[s] >= 0.005]
        return ", ".join(stages)

    def bottleneck(self) -> str:
        """Return one sentence with the bottleneck of the session and the setting that removes it."""
        idle = self.environment.workers - self.workers
        if idle > 0:
            return (
                f"{idle} of {self.environment.workers} workers had nothing to do: each shard is read by one task, and "
                f"there were {self.environment.shards} shards; use more shards, or fewer compute.workers"
            )
        working = self.explaining + self.shares[WAIT] + self.shares[HELD_UP] or 1.0
        if self.shares[START] > 0.5:
            return f"starting took {_percent(self.shares[START])} of the time; its share is smaller in longer runs"
        if self.shares[LOST] >= _NOTABLE_SHARE:
            return (
                f"{_percent(self.shares[LOST])} of the time was lost with workers that died: check memory, and the "
                "failures with code worker_died"
            )
        if self.shares[WAIT] / working >= _NOTABLE_SHARE:
            return self._waiting_for_images(self.shares[WAIT] / working)
        if self.shares[HELD_UP] / working >= _NOTABLE_SHARE:
            return (
                f"the model waits for the store {_percent(self.shares[HELD_UP] / working)} of the time: use a faster "
                "disk, a nearer bucket, or a larger data.chunk_images (fewer, larger parts)"
            )
        if self.shares[END] >= _NOTABLE_SHARE:
            return (
                f"workers are idle at the end for {_percent(self.shares[END])} of the time: use more and smaller "
                "shards, so that workers finish at about the same time"
            )
        return self._explaining()

    def _waiting_for_images(self, share: float) -> str:
        readers = self.beside.get(READ, 0.0) / max(self.length, 1e-9)
        remedy = "more CPUs for reading, or fewer workers"
        if self.environment.shards < 2 * self.environment.workers:
            remedy = (
                f"there were only {self.environment.shards} shards, each is read by one task: use more, or {remedy}"
            )
        return (
            f"the model waits for images {_percent(share)} of the time, while {readers:.1f} CPUs on average read and "
            f"decoded: {remedy}"
        )

    def _explaining(self) -> str:
        most = max(PARTS, key=lambda part: self.shares[part])
        cheaper = {
            "evidence": "larger compute.batch",
            "methods": "methods with fewer passes (`camatlas methods`; parameters clusters, channels)",
            "metrics": "fewer metrics, or cheaper ones (`camatlas metrics`)",
        }[most]
        kind = "GPUs" if self.environment.device == "cuda" else "CPUs and workers"
        faster = (
            ", compute.precision: bf16 if the processor supports it" if self.environment.precision == "fp32" else ""
        )
        return (
            f"explaining takes {_percent(self.explaining)} of the time, most of it {STAGES[most]}: "
            f"use more {kind}{faster}, {cheaper}"
        )


@dataclass
class WorkerTrace:
    """The reports of one worker: its start, as inferred from them, its last report, and the seconds they cover."""

    began: float
    last: float
    reported: float = 0.0


class Session:
    """Collects the times that the workers of a session report."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._seconds: dict[str, float] = {}
        self._traces: dict[str, WorkerTrace] = {}

    def note(self, event: Committed) -> bool:
        """Add the times of a chunk; return True if this is the first report of its worker."""
        now, new = self._clock(), event.worker not in self._traces
        trace = self._traces.setdefault(event.worker, WorkerTrace(now, now))
        for stage, seconds in event.usage.seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        trace.reported += sum(event.usage.seconds.get(stage, 0.0) for stage in (EXPLAIN, WAIT, HELD_UP))
        trace.began, trace.last = min(trace.began, now - trace.reported), now
        return new

    @property
    def working_since(self) -> float | None:
        """Return when the first worker began its first chunk; None before a chunk is finished."""
        return min((trace.began for trace in self._traces.values()), default=None)

    @property
    def workers(self) -> int:
        """Return the number of workers that have reported, including replacements of workers that died."""
        return len(self._traces)

    def stage_times(self, environment: Environment) -> StageTimes:
        """Divide the time up to now into stages."""
        now = self._clock()
        workers = min(environment.workers, len(self._traces))
        seconds = {stage: self._seconds.get(stage, 0.0) for stage in (*PARTS, WAIT, HELD_UP)}
        seconds[ROWS] = max(0.0, self._seconds.get(EXPLAIN, 0.0) - sum(seconds[part] for part in PARTS))
        begins = sorted(trace.began for trace in self._traces.values())[:workers]
        ends = sorted(trace.last for trace in self._traces.values())[len(self._traces) - workers :]
        seconds[START] = sum(max(0.0, began - self._began) for began in begins)
        seconds[END] = sum(now - last for last in ends)
        seconds[LOST] = 0.0
        if len(self._traces) > workers:
            seconds[LOST] = max(0.0, workers * (now - self._began) - sum(seconds.values()))
        beside = {stage: self._seconds.get(stage, 0.0) for stage in (READ, PUBLISH)}
        return StageTimes({stage: seconds[stage] for stage in STAGES}, beside, now - self._began, workers, environment)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
