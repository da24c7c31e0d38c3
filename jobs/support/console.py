"""What all verbs share: where words go, and how errors end a command.

stdout carries the result only; progress and messages go to stderr. Exit codes: 0 ok, 1 unexpected, 2 usage or
config, 3 finished with too many failures, 4 verification failed, 5 store unreachable, 130 interrupted, 143 terminated.
"""

import contextlib
import errno
import functools
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn, ParamSpec

import typer
from rich.console import Console

from jobs.support.signals import TerminatedError, terminated_by_signal
from pipeline.errors import CamatlasError, ConfigError

P = ParamSpec("P")

EXIT_TOO_MANY_FAILURES = 3
EXIT_NOT_VERIFIED = 4
EXIT_STORE = 5
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_WIDE = 10_000
"""Columns of output that no terminal shows: tables are not folded for programs."""


class _PatientConsole(Console):
    """A console whose reader may go away: the work goes on, and its exit code tells how it went."""

    def say(self, text: str) -> None:
        """Print a text that may hold words of the data; control characters are shown, not obeyed."""
        self.print(printable(text))

    def on_broken_pipe(self) -> None:
        """Write nothing any more."""
        self.quiet = True
        _redirect_to_nowhere(self.file)


out = _PatientConsole(
    highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE
)
err = _PatientConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


_UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
"""What the system says when stdout leads to a place that is full or broken."""


def command(verb: Callable[P, int]) -> Callable[P, NoReturn]:
    """Make a verb a command: its value is the exit code, its errors become sentences."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        raise typer.Exit(_guarded(lambda: verb(*args, **kwargs)))

    return run


def leave_after(work: Callable[[], object]) -> NoReturn:
    """Do the work of a process, and leave at once when it is done.

    The verbs close what they open. Python's own way out would also take down the thread pools of native libraries,
    which now and then abort a command that has done its work ("terminate called without an active exception").
    """
    code = 0
    try:
        work()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _guarded(verb: Callable[[], int]) -> int:
    try:
        with terminated_by_signal():
            return _flushed(verb())
    except CamatlasError as error:
        tell_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except TerminatedError:
        return EXIT_TERMINATED
    except SystemExit as ended:  # while Ray starts, the handler for SIGTERM is Ray's, which exits with the number
        if ended.code != signal.SIGTERM:
            raise
        return EXIT_TERMINATED
    except BrokenPipeError:
        if not _is_unread(sys.stdout):
            raise
        _redirect_to_nowhere(sys.stdout)  # its reader has seen enough
        return 0
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _redirect_to_nowhere(sys.stdout)
        err.say(f"error: the result cannot be written: {error.strerror}")
        return EXIT_STORE


def _flushed(code: int) -> int:
    """Bring out what stdout still holds; an exit code stays what it is when nobody reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _redirect_to_nowhere(sys.stdout)
    return code


def _is_unread(stream: IO[str]) -> bool:
    """Whether a stream is a pipe whose reader has gone."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _redirect_to_nowhere(stream: IO[str]) -> None:
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, stream.fileno())
    os.close(handle)


def printable(text: str) -> str:
    """Write control characters as escapes, so that no name in the data can steer a terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def amount(number: float, unit: str = "") -> str:
    """Write a number as people read it: with up to four digits, or with k, M, G or T before its unit."""
    sizes = {} if number < 1e4 else {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
    sign, size = next(((sign, size) for sign, size in sizes.items() if number >= size), ("", 1.0))
    return f"{number / size:.{3 if sign else 4}g} {sign}{unit}".rstrip()


def tell_error(error: CamatlasError) -> None:
    """Print an error as people read it; several mistakes stand one per line."""
    if not isinstance(error, ConfigError):
        err.say(f"error: {error}")
        return
    if len(error.mistakes) == 1:
        err.say(f"error: {error.mistakes[0]}")
        return
    err.say(f"error: {len(error.mistakes)} mistakes, nothing was started")
    for mistake in error.mistakes:
        err.say(f"  {mistake}")


@contextlib.contextmanager
def native_stderr_aside() -> Iterator[None]:
    """Keep what Ray writes straight to file descriptor 2, or prints to stdout, out of the user's sight.

    Ray logs a line about restartable actors at error level in every run, and prints others when a run is stopped.
    Our own messages still reach the terminal.
    The file is kept, and named, only when the work inside fails and something is in it.
    """
    handle, name = tempfile.mkstemp(prefix="camatlas-ray-", suffix=".log")
    terminal = os.dup(2)
    stream = os.fdopen(terminal, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    before, err._file = err._file, stream
    os.dup2(handle, 2)
    failed = False
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except Exception:
        failed = True
        raise
    finally:
        if failed and Path(name).stat().st_size:
            err.say(f"Ray's own messages: {name}")
        else:
            Path(name).unlink()
        stream.flush()
        os.dup2(terminal, 2)
        err._file = before
        os.close(terminal)
        os.close(handle)
