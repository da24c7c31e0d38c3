"""Let SIGINT and SIGTERM end the work of a command, including work in native code."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

_IMPORTING = "<frozen importlib._bootstrap>"
"""File name of the frames of Python's import system."""


class TerminatedError(BaseException):
    """Raised on SIGTERM; a BaseException, like KeyboardInterrupt, so that no `except Exception` catches it."""


@contextlib.contextmanager
def terminated_by_signal() -> Iterator[None]:
    """Raise an exception in the work inside on SIGTERM and SIGINT; Ray installs its own handlers when it starts."""
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs of a shell ignore SIGINT
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    _exit_if_importing(number, frame)
    raise TerminatedError


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _exit_if_importing(number, frame)
    raise KeyboardInterrupt


def _exit_if_importing(number: int, frame: FrameType | None) -> None:
    """Exit at once when a signal arrives during an import: there is nothing to clean up yet.

    Native modules such as torch run Python code while they load, and abort the process when it raises an exception.
    """
    while frame:
        if frame.f_code.co_filename == _IMPORTING:
            os._exit(128 + number)
        frame = frame.f_back


@contextlib.contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on a signal, to end native work inside: Python handles signals only after a native call returns.

    `stop` is called from another thread, repeatedly until the work has ended: the first call may come before the work
    has started.
    """
    numbers: list[int] = []
    try:
        with _watching_signals(stop, numbers):
            yield
    except Exception:
        if not numbers:
            raise
        raise (KeyboardInterrupt if numbers[0] == signal.SIGINT else TerminatedError) from None


@contextlib.contextmanager
def _watching_signals(stop: Callable[[], None], numbers: list[int]) -> Iterator[None]:
    """Append the first signal to `numbers`, and call `stop` from then on."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ended = threading.Event()

    def watch() -> None:
        numbers.extend(os.read(reader, 1))
        while numbers and not ended.wait(0.1):
            stop()

    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    before = signal.set_wakeup_fd(writer)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        os.close(writer)
        watcher.join()
        os.close(reader)
