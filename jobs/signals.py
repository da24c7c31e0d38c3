"""Signals: how SIGINT and SIGTERM end the work of a command, native work too."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn


class TerminatedError(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, so that nothing on the way takes it for a failure."""


@contextlib.contextmanager
def terminated_by_signal() -> Iterator[None]:
    """Let SIGTERM end the work inside in good order; Ray puts a handler of its own in the way when it starts."""

    def raise_it(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the shape signal wants
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def heard_by(stop: Callable[[], None]) -> Iterator[None]:
    """End native work inside when a signal comes: Python hears of it only when the call returns, or not at all.

    `stop` is called from another thread, again and again until the work has ended, as it may have been about to begin.
    """
    numbers: list[int] = []
    try:
        with _watched(stop, numbers):
            yield
    except Exception:
        if not numbers:
            raise
        raise (KeyboardInterrupt if numbers[0] == signal.SIGINT else TerminatedError) from None


@contextlib.contextmanager
def _watched(stop: Callable[[], None], numbers: list[int]) -> Iterator[None]:
    """Collect the first signal that comes, and call `stop` from then on."""
    arrived, sign = os.pipe()
    os.set_blocking(sign, False)
    ended = threading.Event()

    def watch() -> None:
        numbers.extend(os.read(arrived, 1))
        while numbers and not ended.wait(0.1):
            stop()

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    before = signal.set_wakeup_fd(sign)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        os.close(sign)
        watcher.join()
        os.close(arrived)
