"""Stage times of a session add up, even if workers died, and one sentence names the setting to change."""

from dataclasses import dataclass, replace

import pytest

from pipeline.telemetry.bottleneck import STAGES, Environment, Session, StageTimes
from pipeline.telemetry.events import Committed, Usage

HERE = Environment(workers=2, shards=40, device="cpu", precision="fp32")


@dataclass
class Clock:
    """A clock that is set by the test."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def report(worker: str, **seconds: float) -> Committed:
    return Committed(0, 0, 1, 1, {}, ours=True, worker=worker, usage=Usage(seconds))


def test_the_time_of_all_workers_adds_up() -> None:
    clock = Clock()
    session = Session(clock)
    clock.now += 30
    assert session.note(report("a", explain=10.0, wait=2.0, evidence=1.0, methods=6.0, metrics=2.0, read=5.0))
    clock.now += 5
    assert session.note(report("b", explain=10.0, held_up=5.0))
    clock.now += 5
    assert not session.note(report("a", explain=4.0, wait=6.0, publish=1.5))
    clock.now += 10
    found = session.stage_times(HERE)
    assert found.seconds == {
        "start": 18 + 20, "evidence": 1, "methods": 6, "metrics": 2, "rows": 24 - 9, "wait": 8, "held_up": 5,
        "end": 10 + 15, "lost": 0,
    }  # fmt: skip
    assert sum(found.seconds.values()) == 2 * 50
    assert (found.length, found.workers, found.beside) == (50, 2, {"read": 5, "publish": 1.5})
    assert sum(found.shares.values()) == pytest.approx(1)


def test_reports_at_the_same_time_are_added() -> None:
    clock = Clock()
    session = Session(clock)
    clock.now += 30
    for _ in range(3):
        session.note(report("a", explain=5.0))
    assert session.stage_times(HERE).seconds["start"] == 15


def test_the_start_of_a_worker_is_inferred_from_its_first_report() -> None:
    clock = Clock()
    session = Session(clock)
    clock.now += 30
    session.note(report("a", explain=10.0))
    clock.now += 30
    session.note(report("a", explain=5.0))
    assert session.stage_times(HERE).seconds["start"] == 20


def test_time_of_a_worker_that_died_is_lost() -> None:
    clock = Clock()
    session = Session(clock)
    here = replace(HERE, workers=1)
    clock.now += 20
    session.note(report("a", explain=10.0))
    clock.now += 50
    session.note(report("b", explain=20.0))
    found = session.stage_times(here)
    assert (session.workers, found.workers) == (2, 1)
    assert (found.seconds["start"], found.seconds["lost"], found.seconds["end"]) == (10, 30, 0)
    assert sum(found.seconds.values()) == 70
    assert "was lost with workers that died" in found.bottleneck()


def test_a_session_without_reports_has_no_shares() -> None:
    found = Session(Clock()).stage_times(HERE)
    assert set(found.shares.values()) == {0.0}
    assert found.line() == ""
    assert "2 of 2 workers had nothing to do" in found.bottleneck()


def stage_times(here: Environment = HERE, read: float = 0.0, **seconds: float) -> StageTimes:
    return StageTimes({stage: seconds.get(stage, 0.0) for stage in STAGES}, {"read": read}, 100.0, here.workers, here)


def test_the_line_omits_shares_that_round_to_zero() -> None:
    assert stage_times(start=10, methods=70, wait=19.8, end=0.2).line() == (
        "starting 10 %, methods 70 %, waiting for images 20 %"
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (stage_times(methods=90, wait=10), ["explaining takes 90 %", "most of it methods", "bf16", "clusters"]),
        (stage_times(replace(HERE, precision="bf16", device="cuda"), metrics=90, rows=9), ["more GPUs, fewer metrics"]),
        (stage_times(evidence=90), ["most of it passes on the clean images", "larger compute.batch"]),
        (stage_times(methods=57, wait=43, read=130.0), ["waits for images 43 % of", "while 1.3 CPUs", "more CPUs"]),
        (stage_times(replace(HERE, shards=3), methods=50, wait=50), ["only 3 shards, each is read by one task"]),
        (stage_times(methods=50, wait=5, held_up=45), ["waits for the store 45 % of the time", "data.chunk_images"]),
        (stage_times(methods=70, end=30), ["idle at the end for 30 % of the time", "smaller shards"]),
        (stage_times(methods=40, start=60), ["starting took 60 % of the time; its share is smaller in longer runs"]),
        (stage_times(methods=70, start=10, lost=20), ["20 % of the time was lost with workers that died"]),
    ],
)  # fmt: skip
def test_the_bottleneck_names_the_setting_to_change(found: StageTimes, words: list[str]) -> None:
    assert [word for word in words if word not in found.bottleneck()] == []


def test_workers_without_work_are_reported_first() -> None:
    found = replace(stage_times(methods=100), workers=1)
    assert found.bottleneck().startswith(
        "1 of 2 workers had nothing to do: each shard is read by one task, and there were 40"
    )
