"""Timers that measure what a worker's model does, with a few clock readings per chunk.

The model is the scarce resource of a worker. At each moment it explains, waits for images, or waits because all calls
of the worker are publishing. Reading and publishing run in parallel with the model and are timed separately.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXPLAIN = "explain"
"""The model is in use, for one of `PARTS` or for making rows."""
WAIT = "wait"
"""The model is free, and the worker is waiting for a work unit."""
HELD_UP = "held_up"
"""The model is free, but all calls of the worker are publishing."""
PARTS = ("evidence", "methods", "metrics")
"""Parts of the time to explain: passes on the clean images, methods, metrics; the rest is making rows."""
READ, PUBLISH = "read", "publish"
"""In parallel with the model: reading and decoding in other processes, publishing in the worker."""

CALLS = 2
"""Concurrent calls of a worker; see `pipeline.run.worker`."""


class Stopwatch:
    """Adds up seconds by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the time of a block."""
        began = self._clock()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - began

    def take(self) -> dict[str, float]:
        """Return and reset the seconds by name."""
        seconds, self._seconds = self._seconds, {}
        return seconds


class Timeline:
    """Records what the model did at every moment since the first work unit; thread-safe.

    Attributes:
        inside: number of calls that are working on a work unit.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._seconds: dict[str, float] = {}
        self._since: float | None = None
        self._model_taken = False
        self.inside = 0

    @contextmanager
    def load(self) -> Iterator[None]:
        """Mark a block in which a call works on a work unit."""
        self._advance(inside=1)
        try:
            yield
        finally:
            self._advance(inside=-1)

    @contextmanager
    def model(self) -> Iterator[None]:
        """Mark a block in which the model is in use."""
        self._advance(taken=True)
        try:
            yield
        finally:
            self._advance(taken=False)

    def take(self) -> dict[str, float]:
        """Return and reset the seconds by state of the model."""
        self._advance()
        with self._lock:
            seconds, self._seconds = self._seconds, {}
        return seconds

    def _advance(self, inside: int = 0, taken: bool | None = None) -> None:
        """Add the time up to now to the current state, then change the state."""
        with self._lock:
            now = self._clock()
            if self._since is not None:
                state = EXPLAIN if self._model_taken else HELD_UP if self.inside >= CALLS else WAIT
                self._seconds[state] = self._seconds.get(state, 0.0) + now - self._since
            self._since = now
            self.inside += inside
            self._model_taken = self._model_taken if taken is None else taken
