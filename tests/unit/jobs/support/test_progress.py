"""Progress of a run: rates without the start, estimates, lines, JSON events and the bar."""

import io
import json
from dataclasses import dataclass

import pytest
from rich.console import Console

from jobs.support import progress
from jobs.support.progress import Reporter, Tally, duration
from jobs.support.watch import Watch
from pipeline.telemetry.bottleneck import Session
from pipeline.telemetry.events import Committed, Heartbeat, Usage
from pipeline.telemetry.timers import EXPLAIN, WAIT


@dataclass
class Clock:
    """A clock that tests set by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at an arbitrary time."""
    return Clock()


def tally(clock: Clock, total_images: int | None = 100, total_bytes: int = 0) -> Tally:
    return Tally(total_images, total_bytes, clock=clock)


def event(made: Tally, clock: Clock, after: float, images: int) -> None:
    clock.now += after
    made.images += images
    made.mark()


def test_before_the_first_event_nothing_is_known(clock: Clock) -> None:
    made = tally(clock)
    clock.now += 60
    assert (made.images_per_second, made.seconds_left) == (0.0, None)
    assert made.line() == "0 images, 0 chunks committed, 0 failures"


def test_the_first_event_gives_no_rate(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 60, 10)
    assert (made.images_per_second, made.seconds_left) == (0.0, None)
    assert made.share == 0.1


def test_events_within_a_second_give_no_rate_before_a_chunk_is_finished(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 20, 16)
    event(made, clock, 0.002, 14)
    assert (made.images_per_second, made.seconds_left) == (0.0, None)


def test_the_rate_counts_from_when_the_first_finished_chunk_was_begun(clock: Clock) -> None:
    """Ninety seconds to start, then four seconds for a chunk of eight images, and two for the next one."""
    made = tally(clock, total_images=40)
    session = Session(clock)
    watch = Watch(made, session, 1, ("a.tar",), json_events=True)
    for after, seconds in ((94, 4.0), (2, 2.0)):
        clock.now += after
        watch.note(Heartbeat(8))
        watch.note(Committed(0, 0, 8, 100, {}, ours=True, worker="w", usage=Usage({EXPLAIN: seconds})))
        made.mark()
        assert made.images_per_second == pytest.approx(made.images / (clock.now - 1090))
    assert made.images_per_second == pytest.approx(16 / 6)
    assert made.seconds_left == pytest.approx(24 / (16 / 6))


def test_chunks_that_are_reported_together_do_not_shorten_the_time(clock: Clock) -> None:
    """The three chunks of a work unit arrive at once, when it ends."""
    made = tally(clock)
    watch = Watch(made, Session(clock), 1, ("a.tar",), json_events=True)
    clock.now += 60 + 12
    for _ in range(3):
        watch.note(Heartbeat(4))
        watch.note(Committed(0, 0, 4, 100, {}, ours=True, worker="w", usage=Usage({EXPLAIN: 3.0, WAIT: 1.0})))
        made.mark()
    assert made.images_per_second == pytest.approx(1.0)


def test_a_second_worker_that_starts_later_does_not_move_the_start(clock: Clock) -> None:
    made = tally(clock)
    watch = Watch(made, Session(clock), 2, ("a.tar",), json_events=True)
    for after, worker in ((10, "first"), (30, "second")):
        clock.now += after
        watch.note(Heartbeat(10))
        watch.note(Committed(0, 0, 10, 100, {}, ours=True, worker=worker, usage=Usage({EXPLAIN: 5.0})))
        made.mark()
    assert made.images_per_second == pytest.approx(20 / 35)


def test_the_rate_excludes_the_start_of_the_workers(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 3600, 10)
    event(made, clock, 2, 20)
    assert made.images_per_second == 10
    event(made, clock, 2, 20)
    assert made.images_per_second == 10
    assert made.seconds_left == 5


def test_events_without_images_count_as_time(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 5, 0)
    event(made, clock, 10, 40)
    event(made, clock, 10, 0)
    assert made.images_per_second == 2
    assert made.seconds_left == 30


def test_time_after_the_last_event_does_not_lower_the_rate(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 5, 10)
    event(made, clock, 10, 40)
    clock.now += 1000
    assert made.images_per_second == 4
    assert made.seconds_left == 12.5


def test_with_more_images_than_expected_no_time_is_left(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 1, 10)
    event(made, clock, 1, 140)
    assert (made.share, made.seconds_left) == (1.0, 0.0)


def test_without_a_number_of_images_the_share_is_estimated_from_bytes(clock: Clock) -> None:
    made = tally(clock, total_images=None, total_bytes=10_000)
    event(made, clock, 1, 10)
    assert made.share is None
    made.committed_images, made.committed_bytes = 20, 2000
    event(made, clock, 2, 20)
    assert made.share == pytest.approx(0.3)
    assert made.images_per_second == 10
    assert made.seconds_left == pytest.approx(7)


def test_without_bytes_and_images_the_share_is_unknown(clock: Clock) -> None:
    made = tally(clock, total_images=0, total_bytes=0)
    assert made.share is None
    made.committed_images, made.committed_bytes, made.images = 1, 10, 1
    assert made.share == 1.0


def test_a_line_has_counts_rate_and_time_left(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 1, 10)
    event(made, clock, 4, 10)
    made.chunks = 3
    made.failures.update({"truncated": 2, "label": 1})
    assert made.line() == "20 images, 2.5 images/s, 3 chunks committed, 3 failures, about 32 s left"


def test_an_event_has_the_same_numbers(clock: Clock) -> None:
    made = tally(clock)
    made.failures.update({"truncated": 2})
    event(made, clock, 1, 10)
    assert json.loads(json.dumps(made.event())) == {
        "images": 10,
        "images_per_second": None,
        "chunks": 0,
        "failures": {"truncated": 2},
        "eta_seconds": None,
    }
    event(made, clock, 3, 10)
    assert (made.event()["images_per_second"], made.event()["eta_seconds"]) == (3.33, 24)


def test_a_reporter_marks_each_event(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    made = tally(clock)
    with Reporter(made, json_events=True) as reporter:
        clock.now += 100
        for _ in range(3):
            clock.now += 1
            made.images += 5
            reporter.update()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["images"] for event in events] == [5, 10, 15]
    assert [event["images_per_second"] for event in events] == [None, 5.0, 5.0]


def test_events_come_at_most_once_a_second_and_the_last_state_is_reported(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tally(clock, total_images=None)
    with Reporter(made, json_events=True) as reporter:
        for _ in range(1005):
            clock.now += 1 / 64
            made.images += 1
            reporter.update()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["images"] for event in events[:3]] == [1, 65, 129]
    assert (len(events), events[-1]["images"]) == (17, 1005)
    assert {event["event"] for event in events} == {"progress"}
    assert all(event["time"].endswith("+00:00") for event in events)


def test_a_state_that_was_reported_is_not_repeated_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    made = tally(clock)
    with Reporter(made, json_events=True) as reporter:
        made.images += 1
        reporter.update()
    with Reporter(made, json_events=True):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_a_terminal_there_is_a_line_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    made = tally(clock)
    with Reporter(made, json_events=False) as reporter:
        for _ in range(25):
            clock.now += 1
            made.images += 1
            reporter.update()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split(",")[0] for line in printed.err.splitlines()] == ["10 images", "20 images"]


def test_on_a_terminal_there_is_a_bar_that_is_removed_at_the_end(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "err", Console(file=screen, force_terminal=True, width=200))
    made = tally(clock)
    with Reporter(made, json_events=False) as reporter:
        assert "starting workers" in screen.getvalue()
        made.images = 40
        reporter.update()
        bar = reporter._bar
        assert bar is not None
        assert (bar.tasks[0].completed, bar.tasks[0].total) == (0.4, 1.0)
        assert bar.tasks[0].description.startswith("40 images")
    assert bar.finished is False
    assert not bar.live.is_started


def test_a_bar_is_stopped_when_the_work_fails(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "err", Console(file=io.StringIO(), force_terminal=True))
    reporter = Reporter(tally(clock), json_events=False)
    with pytest.raises(RuntimeError), reporter:
        raise RuntimeError("bug")
    assert reporter._bar is not None
    assert not reporter._bar.live.is_started


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (600, "10 min"),
        (5999, "100 min"),
        (6000, "1.7 h"),
        (360_000, "100.0 h"),
    ],
)
def test_durations_are_written_in_a_suitable_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
