"""Where the time of a worker goes, by a few looks at the clock for every chunk.

The model of a worker is the scarce thing: at each moment it explains, waits for images, or waits because everything the
worker holds is being published. Reading and publishing go on beside it and are counted apart.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXPLAIN = "explain"
"""The model is taken; `PARTS` say for what."""
WAIT = "wait"
"""The model is free, and the worker has room for a load that is not there."""
HELD_UP = "held_up"
"""The model is free, and all calls of the worker publish."""
PARTS = ("evidence", "methods", "metrics")
"""Of explaining: passes on the clean images, methods, metrics; the rest is making rows."""
READ, PUBLISH = "read", "publish"
"""Beside the model: reading and decoding in other processes, publishing in the worker."""

CALLS = 2
"""So many calls a worker has; see `pipeline.run.worker`."""


class Stopwatch:
    """Adds up seconds by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        began = self._clock()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - began

    def take(self) -> dict[str, float]:
        """Give what was counted since this was last asked."""
        seconds, self._seconds = self._seconds, {}
        return seconds


class Timeline:
    """Says of every moment since the first load what the model did; for several threads.

    Attributes:
        inside: calls that work on a load.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._seconds: dict[str, float] = {}
        self._since: float | None = None
        self._taken = False
        self.inside = 0

    @contextmanager
    def load(self) -> Iterator[None]:
        """A call works on a load."""
        self._turn(inside=1)
        try:
            yield
        finally:
            self._turn(inside=-1)

    @contextmanager
    def model(self) -> Iterator[None]:
        """The model is taken."""
        self._turn(taken=True)
        try:
            yield
        finally:
            self._turn(taken=False)

    def take(self) -> dict[str, float]:
        """Give the seconds by what the model did, since this was last asked."""
        self._turn()
        with self._lock:
            seconds, self._seconds = self._seconds, {}
        return seconds

    def _turn(self, inside: int = 0, taken: bool | None = None) -> None:
        """Charge the time up to now to what went on, then note the change."""
        with self._lock:
            now = self._clock()
            if self._since is not None:
                state = EXPLAIN if self._taken else HELD_UP if self.inside >= CALLS else WAIT
                self._seconds[state] = self._seconds.get(state, 0.0) + now - self._since
            self._since = now
            self.inside += inside
            self._taken = self._taken if taken is None else taken
