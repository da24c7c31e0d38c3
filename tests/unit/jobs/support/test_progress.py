"""What a run says of itself while it goes on: rates since the first news, estimates, lines, events and the bar."""

import io
import json
from dataclasses import dataclass

import pytest
from rich.console import Console

from jobs.support import progress
from jobs.support.progress import Reporter, Tally, duration


@dataclass
class Clock:
    """A clock that goes only when it is told to."""

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


def test_nothing_can_be_said_before_there_is_news(clock: Clock) -> None:
    made = tally(clock)
    clock.now += 60
    assert (made.images_per_second, made.seconds_left) == (0.0, None)
    assert made.line() == "0 images, 0 chunks committed, 0 failures"


def test_one_piece_of_news_gives_no_rate_yet(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 60, 10)
    assert (made.images_per_second, made.seconds_left) == (0.0, None)
    assert made.share == 0.1


def test_news_that_come_all_at_once_at_the_end_give_the_rate_of_the_whole_session(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 20, 16)
    event(made, clock, 0.002, 14)
    assert made.images_per_second == pytest.approx(30 / 20.002)


def test_the_start_of_the_workers_does_not_count(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 3600, 10)
    event(made, clock, 2, 20)
    assert made.images_per_second == 10
    event(made, clock, 2, 20)
    assert made.images_per_second == 10
    assert made.seconds_left == 5


def test_news_without_images_counts_as_time(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 5, 0)
    event(made, clock, 10, 40)
    event(made, clock, 10, 0)
    assert made.images_per_second == 2
    assert made.seconds_left == 30


def test_what_comes_after_the_last_news_does_not_lower_the_rate(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 5, 10)
    event(made, clock, 10, 40)
    clock.now += 1000
    assert made.images_per_second == 4
    assert made.seconds_left == 12.5


def test_nothing_is_left_at_the_end_even_if_there_was_more_than_expected(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 1, 10)
    event(made, clock, 1, 140)
    assert (made.share, made.seconds_left) == (1.0, 0.0)


def test_without_a_number_of_images_the_bytes_tell_the_share(clock: Clock) -> None:
    made = tally(clock, total_images=None, total_bytes=10_000)
    event(made, clock, 1, 10)
    assert made.share is None
    made.committed_images, made.committed_bytes = 20, 2000
    event(made, clock, 2, 20)
    assert made.share == pytest.approx(0.3)
    assert made.images_per_second == 10
    assert made.seconds_left == pytest.approx(7)


def test_no_bytes_and_no_images_are_no_share(clock: Clock) -> None:
    made = tally(clock, total_images=0, total_bytes=0)
    assert made.share is None
    made.committed_images, made.committed_bytes, made.images = 1, 10, 1
    assert made.share == 1.0


def test_a_line_tells_people_what_is_done_and_what_is_left(clock: Clock) -> None:
    made = tally(clock)
    event(made, clock, 1, 10)
    event(made, clock, 4, 10)
    made.chunks = 3
    made.failures.update({"truncated": 2, "label": 1})
    assert made.line() == "20 images, 2.5 images/s, 3 chunks committed, 3 failures, about 32 s left"


def test_an_event_tells_programs_the_same(clock: Clock) -> None:
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


def test_a_reporter_marks_the_news_that_it_shows(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_events_come_at_most_once_a_second_and_the_last_news_is_told(
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


def test_news_that_was_told_is_not_told_again_at_the_end(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
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
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.split(",")[0] for line in told.err.splitlines()] == ["10 images", "20 images"]


def test_on_a_terminal_there_is_a_bar_that_goes_away(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_durations_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
