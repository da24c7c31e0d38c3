"""What all verbs share: where words go, and how errors end a command.

stdout carries the result only; progress and messages go to stderr. Exit codes: 0 ok, 1 unexpected, 2 usage or
config, 3 finished with too many failures, 4 verification failed, 5 store unreachable, 130 interrupted, 143 terminated.
"""

import contextlib
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, ParamSpec

import typer
from rich.console import Console

from pipeline.errors import CamatlasError, ConfigError

P = ParamSpec("P")

EXIT_TOO_MANY_FAILURES = 3
EXIT_NOT_VERIFIED = 4
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_WIDE = 10_000
"""Columns of output that no terminal shows: tables are not folded for programs."""

out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


class TerminatedError(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt, so that nothing on the way takes it for a failure."""


def command(verb: Callable[P, int]) -> Callable[P, NoReturn]:
    """Make a verb a command: its value is the exit code, its errors become sentences."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        raise typer.Exit(_guarded(lambda: verb(*args, **kwargs)))

    return run


def _guarded(verb: Callable[[], int]) -> int:
    try:
        with _terminated_by_signal():
            return verb()
    except CamatlasError as error:
        tell_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except TerminatedError:
        return EXIT_TERMINATED
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def tell_error(error: CamatlasError) -> None:
    """Print an error as people read it; several mistakes stand one per line."""
    if not isinstance(error, ConfigError):
        err.print(f"error: {error}")
        return
    if len(error.mistakes) == 1:
        err.print(f"error: {error.mistakes[0]}")
        return
    err.print(f"error: {len(error.mistakes)} mistakes, nothing was started")
    for mistake in error.mistakes:
        err.print(f"  {mistake}")


@contextlib.contextmanager
def _terminated_by_signal() -> Iterator[None]:
    def raise_it(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - the shape signal wants
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, raise_it)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def native_stderr_aside() -> Iterator[None]:
    """Keep what Ray's native code writes straight to file descriptor 2 out of the user's sight.

    Ray logs a line about restartable actors at error level in every run. Our own messages still reach the terminal.
    The file is kept, and named, only when the work inside fails.
    """
    handle, name = tempfile.mkstemp(prefix="camatlas-ray-", suffix=".log")
    terminal = os.dup(2)
    stream = os.fdopen(terminal, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    before, err.file = err.file, stream
    os.dup2(handle, 2)
    try:
        yield
    except Exception:
        if Path(name).stat().st_size:
            err.print(f"Ray's own messages: {name}")
        raise
    else:
        Path(name).unlink()
    finally:
        stream.flush()
        os.dup2(terminal, 2)
        err.file = before
        os.close(terminal)
        os.close(handle)
