"""Where the time of a worker goes: every moment is charged to exactly one state of its model."""

import contextlib
import threading
from dataclasses import dataclass

from pipeline.telemetry.timers import EXPLAIN, HELD_UP, WAIT, Stopwatch, Timeline


@dataclass
class Clock:
    """A clock that goes only when it is told to."""

    now: float = 50.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        self.now += seconds


def test_a_stopwatch_adds_up_by_name_and_begins_anew() -> None:
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


def test_a_worker_explains_waits_and_is_held_up() -> None:
    clock = Clock()
    line = Timeline(clock)
    clock.after(1000)  # before the first load: the start
    with line.load():
        clock.after(1)
        with line.model():
            clock.after(10)
        clock.after(2)  # it publishes alone, and has room for a load that is not there
        with line.load():
            clock.after(3)  # both publish
            with line.model():
                clock.after(20)
        clock.after(4)
    clock.after(5)
    assert line.take() == {EXPLAIN: 30, WAIT: 1 + 2 + 4 + 5, HELD_UP: 3}
    clock.after(6)
    assert line.take() == {WAIT: 6}


def test_what_is_taken_while_the_model_works_is_charged_up_to_now() -> None:
    clock = Clock()
    line = Timeline(clock)
    with line.load(), line.model():
        clock.after(7)
        assert line.take()[EXPLAIN] == 7
        clock.after(8)
    assert line.take()[EXPLAIN] == 8


def test_threads_lose_no_time() -> None:
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
