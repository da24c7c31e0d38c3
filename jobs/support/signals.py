"""Signals: how SIGINT and SIGTERM end the work of a command, native work too."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

_IMPORTING = "<frozen importlib._bootstrap>"
"""Where the frames of Python's own import are."""


class TerminatedError(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, so that nothing on the way takes it for a failure."""


@contextlib.contextmanager
def terminated_by_signal() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the work inside in good order; Ray puts a handler in the way when it starts."""
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    _leave_while_importing(number, frame)
    raise TerminatedError


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _leave_while_importing(number, frame)
    raise KeyboardInterrupt


def _leave_while_importing(number: int, frame: FrameType | None) -> None:
    """Leave at once when a signal comes while modules are loaded: nothing is in hand then that must be put in order.

    Native modules run Python as they load, torch for one, and abort the process when an exception comes out of it.
    """
    while frame:
        if frame.f_code.co_filename == _IMPORTING:
            os._exit(128 + number)
        frame = frame.f_back


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
