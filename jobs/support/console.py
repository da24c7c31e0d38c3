"""Output streams, error messages and exit codes of all verbs.

stdout carries only the result. Progress and messages go to stderr. Exit codes: 0 ok, 1 unexpected, 2 usage or
config, 3 finished with too many failures, 4 verification failed, 5 store unreachable, 6 a check failed,
130 interrupted, 143 terminated.
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
EXIT_CHECK_FAILED = 6
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_WIDE = 10_000
"""Width in columns when stdout is not a terminal, so that tables are not folded for programs."""


class _PipeSafeConsole(Console):
    """A console that falls silent when its pipe is closed: the work goes on, and the exit code reports its outcome."""

    def say(self, text: str) -> None:
        """Print a text that may contain names from the data, with control characters escaped."""
        self.print(printable(text))

    def on_broken_pipe(self) -> None:
        """Stop writing."""
        self.quiet = True
        _redirect_to_devnull(self.file)


out = _PipeSafeConsole(
    highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE
)
err = _PipeSafeConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


_LEFT_OUT = frozenset(
    [
        "altair",
        "jinja2",
        "ray",
        "safetensors",
        "scipy",
        "skimage",
        "sklearn",
        "torch",
        "torchvision",
        "vl_convert",
        "webdataset",
    ]
)
"""Modules that an installation for queries alone leaves out; see deploy/requirements.query.txt."""
_UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)
"""Errors when stdout is redirected to a disk that is full or broken."""


def command(verb: Callable[P, int]) -> Callable[P, NoReturn]:
    """Make a command of a verb: its return value is the exit code, and its errors are printed as messages."""

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> NoReturn:
        raise typer.Exit(_guarded(_words_of(verb), lambda: verb(*args, **kwargs)))

    return run


def leave_after(work: Callable[[], object]) -> NoReturn:
    """Run `work`, then end the process at once, without Python's shutdown.

    The verbs close what they open. Python's shutdown would also stop the thread pools of native libraries, which
    occasionally aborts a command that has succeeded ("terminate called without an active exception").
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


def _guarded(name: str, verb: Callable[[], int]) -> int:
    try:
        with terminated_by_signal():
            return _flushed(verb())
    except ModuleNotFoundError as error:
        if error.name not in _LEFT_OUT:
            raise
        err.say(f"error: `camatlas {name}` needs {error.name}, which is not installed: pip install camatlas")
        return ConfigError.exit_code
    except CamatlasError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except TerminatedError:
        return EXIT_TERMINATED
    except SystemExit as ended:  # while Ray starts, SIGTERM is handled by Ray, which exits with the signal's number
        if ended.code != signal.SIGTERM:
            raise
        return EXIT_TERMINATED
    except BrokenPipeError:
        if not _is_closed_pipe(sys.stdout):
            raise
        _redirect_to_devnull(sys.stdout)  # a reader such as `head` has read enough
        return 0
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _redirect_to_devnull(sys.stdout)
        err.say(f"error: cannot write the result: {error.strerror}")
        return EXIT_STORE


def _words_of(verb: Callable[..., object]) -> str:
    """Return the words that call a verb: the name of its file and, where that holds several, its own."""
    package, _, file = verb.__module__.rpartition(".")
    return " ".join(dict.fromkeys((file, verb.__name__))) if package == "jobs" else verb.__name__


def _flushed(code: int) -> int:
    """Flush stdout and return the exit code, which a closed pipe does not change."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _redirect_to_devnull(sys.stdout)
    return code


def _is_closed_pipe(stream: IO[str]) -> bool:
    """Return whether a stream is a pipe whose reading end is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _redirect_to_devnull(stream: IO[str]) -> None:
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, stream.fileno())
    os.close(handle)


def printable(text: str) -> str:
    """Escape control characters, so that no name in the data can control the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def amount(number: float, unit: str = "") -> str:
    """Format a number for people: with up to four digits, or from 10,000 on with the prefix k, M, G or T."""
    sizes = {} if number < 1e4 else {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}
    prefix, size = next(((prefix, size) for prefix, size in sizes.items() if number >= size), ("", 1.0))
    return f"{number / size:.{3 if prefix else 4}g} {prefix}{unit}".rstrip()


def counted(number: int, noun: str) -> str:
    """Format a number of things: `1 image`, `2 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_error(error: CamatlasError) -> None:
    """Print an error on stderr; several mistakes are printed one per line."""
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
def capture_native_stderr() -> Iterator[None]:
    """Send what Ray writes to file descriptor 2, or prints to stdout, to a temporary file.

    Ray logs a line about restartable actors at error level in every run, and more when a run is stopped. Messages of
    camatlas still reach the terminal. The file is kept, and its name printed, only when the work inside fails and the
    file is not empty.
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
            err.say(f"messages of Ray: {name}")
        else:
            Path(name).unlink()
        stream.flush()
        os.dup2(terminal, 2)
        err._file = before
        os.close(terminal)
        os.close(handle)
