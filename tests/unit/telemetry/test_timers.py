"""Timers of a worker: every moment is assigned to exactly one state of its model."""

import contextlib
import threading
from dataclasses import dataclass

from pipeline.telemetry.timers import EXPLAIN, HELD_UP, WAIT, Stopwatch, Timeline


@dataclass
class Clock:
    """A clock that is set by the test."""

    now: float = 50.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += seconds


def test_a_stopwatch_adds_up_by_name_and_is_reset() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    for seconds in (1, 2):
        with watch.timing("methods"):
            clock.after(seconds)
        clock.after(100)
    with contextlib.suppress(RuntimeError), watch.timing("metrics"):
        clock.after(4)
        raise RuntimeError
    assert watch.take() == {"methods": 3, "metrics": 4}
    assert watch.take() == {}


def test_every_moment_counts_as_explain_wait_or_held_up() -> None:
    clock = Clock()
    line = Timeline(clock)
    clock.after(1000)  # before the first work unit: not counted here
    with line.load():
        clock.after(1)
        with line.model():
            clock.after(10)
        clock.after(2)  # one call publishes, the other waits for a work unit
        with line.load():
            clock.after(3)  # both calls are publishing
            with line.model():
                clock.after(20)
        clock.after(4)
    clock.after(5)
    assert line.take() == {EXPLAIN: 30, WAIT: 1 + 2 + 4 + 5, HELD_UP: 3}
    clock.after(6)
    assert line.take() == {WAIT: 6}


def test_taking_the_seconds_while_the_model_works_includes_them_up_to_now() -> None:
    clock = Clock()
    line = Timeline(clock)
    with line.load(), line.model():
        clock.after(7)
        assert line.take()[EXPLAIN] == 7
        clock.after(8)
    assert line.take()[EXPLAIN] == 8


def test_a_timeline_is_thread_safe() -> None:
    line = Timeline()

    def work() -> None:
        for _ in range(500):
            with line.load():
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert line.inside == 0
    assert set(line.take()) <= {WAIT, HELD_UP}
