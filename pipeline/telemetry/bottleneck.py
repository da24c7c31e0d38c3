"""Where the time of a session went, what held it up most, and which setting moves that.

A session's time is the sum over its busy workers, each from the start of the session to its end. A worker reports for
every moment since its first work unit what its model did (`pipeline.telemetry.timers`). The time before that counts as
starting, the time after its last report as idle at the end, and what remains was lost with workers that died.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.telemetry.events import Committed
from pipeline.telemetry.timers import EXPLAIN, HELD_UP, PARTS, PUBLISH, READ, WAIT

_MUCH = 0.2
"""A share of this size is worth a word even where explaining takes more."""
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
"""What a worker's time is divided into, in the order in which it is told."""


@dataclass(frozen=True)
class Environment:
    """What a session could change.

    Attributes:
        workers: actors that hold the model.
        shards: that were not finished when it began.
        device, precision: of the model.
    """

    workers: int
    shards: int
    device: str
    precision: str


@dataclass(frozen=True)
class StageTimes:
    """Seconds of workers by stage; they add up to the session's length times its busy workers.

    Attributes:
        seconds: by the names of `STAGES`.
        beside: seconds of reading and decoding, and of publishing, that passed beside the model.
        length: seconds of the session.
        workers: those that had anything to do.
        circumstances: of the session.
    """

    seconds: Mapping[str, float]
    beside: Mapping[str, float]
    length: float
    workers: int
    environment: Environment

    @property
    def shares(self) -> dict[str, float]:
        """The same as shares of the whole, in [0, 1]."""
        whole = sum(self.seconds.values())
        return {stage: seconds / whole if whole else 0.0 for stage, seconds in self.seconds.items()}

    @property
    def explaining(self) -> float:
        """Share of the time in which models explained."""
        return sum(self.shares[stage] for stage in (*PARTS, ROWS))

    def line(self) -> str:
        """The shares in one line, those that round to nothing left out."""
        told = [f"{words} {_percent(self.shares[s])}" for s, words in STAGES.items() if self.shares[s] >= 0.005]
        return ", ".join(told)

    def bottleneck(self) -> str:
        """One sentence: what the session waited for most, and the setting that moves it."""
        idle = self.environment.workers - self.workers
        if idle > 0:
            return (
                f"{idle} of {self.environment.workers} workers had nothing to do: a shard is read by one task, and "
                f"there were {self.environment.shards}; have more shards, or fewer compute.workers"
            )
        working = self.explaining + self.shares[WAIT] + self.shares[HELD_UP] or 1.0
        if self.shares[START] > 0.5:
            return f"starting took {_percent(self.shares[START])} of the time; it is paid once, however long a run is"
        if self.shares[LOST] >= _MUCH:
            return (
                f"{_percent(self.shares[LOST])} of the time went with workers that died: look at memory, and at the "
                "failures with code worker_died"
            )
        if self.shares[WAIT] / working >= _MUCH:
            return self._hungry(self.shares[WAIT] / working)
        if self.shares[HELD_UP] / working >= _MUCH:
            return (
                f"the model waits for the store {_percent(self.shares[HELD_UP] / working)} of the time: a faster disk "
                "or a nearer bucket, or a larger data.chunk_images (fewer, larger parts)"
            )
        if self.shares[END] >= _MUCH:
            return (
                f"workers stand idle at the end for {_percent(self.shares[END])} of the time: more and smaller shards "
                "end at about the same time"
            )
        return self._busy()

    def _hungry(self, share: float) -> str:
        readers = self.beside.get(READ, 0.0) / max(self.length, 1e-9)
        remedy = "more CPUs for reading, or fewer workers"
        if self.environment.shards < 2 * self.environment.workers:
            remedy = (
                f"there were only {self.environment.shards} shards, each is read by one task: have more, or {remedy}"
            )
        return (
            f"the model waits for images {_percent(share)} of the time, while {readers:.1f} CPUs on average read and "
            f"decoded: {remedy}"
        )

    def _busy(self) -> str:
        most = max(PARTS, key=lambda part: self.shares[part])
        cheaper = {
            "evidence": "larger compute.batch",
            "methods": "methods of fewer passes (`camatlas methods`; clusters, channels)",
            "metrics": "fewer metrics, or cheaper ones (`camatlas metrics`)",
        }[most]
        kind = "GPUs" if self.environment.device == "cuda" else "CPUs and workers"
        faster = ", compute.precision: bf16 where the processor has it" if self.environment.precision == "fp32" else ""
        return (
            f"explaining takes {_percent(self.explaining)} of the time, most of it {STAGES[most]}: "
            f"more {kind}{faster}, {cheaper}"
        )


@dataclass
class WorkerTrace:
    """What one worker said: when it must have begun, when it last spoke, and how much time it accounted for."""

    began: float
    last: float
    told: float = 0.0


class Session:
    """Gathers what the workers of a session tell of their time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._seconds: dict[str, float] = {}
        self._traces: dict[str, WorkerTrace] = {}

    def note(self, event: Committed) -> bool:
        """Count what a chunk took; True when its worker had not spoken before."""
        now, new = self._clock(), event.worker not in self._traces
        trace = self._traces.setdefault(event.worker, WorkerTrace(now, now))
        for stage, seconds in event.usage.seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        trace.told += sum(event.usage.seconds.get(stage, 0.0) for stage in (EXPLAIN, WAIT, HELD_UP))
        trace.began, trace.last = min(trace.began, now - trace.told), now
        return new

    @property
    def workers(self) -> int:
        """Workers that have spoken, those that took the place of others too."""
        return len(self._traces)

    def stage_times(self, environment: Environment) -> StageTimes:
        """Say where the time up to now went."""
        now = self._clock()
        workers = min(environment.workers, len(self._traces))
        told = {stage: self._seconds.get(stage, 0.0) for stage in (*PARTS, WAIT, HELD_UP)}
        told[ROWS] = max(0.0, self._seconds.get(EXPLAIN, 0.0) - sum(told[part] for part in PARTS))
        begins = sorted(trace.began for trace in self._traces.values())[:workers]
        ends = sorted(trace.last for trace in self._traces.values())[len(self._traces) - workers :]
        told[START] = sum(max(0.0, began - self._began) for began in begins)
        told[END] = sum(now - last for last in ends)
        told[LOST] = 0.0
        if len(self._traces) > workers:
            told[LOST] = max(0.0, workers * (now - self._began) - sum(told.values()))
        beside = {stage: self._seconds.get(stage, 0.0) for stage in (READ, PUBLISH)}
        return StageTimes({stage: told[stage] for stage in STAGES}, beside, now - self._began, workers, environment)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
