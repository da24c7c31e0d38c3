"""The streams of a command: pipes that nobody reads any more, and Ray's chatter put aside."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from verbs import exit_code, raising

from jobs.support.console import EXIT_NOT_VERIFIED, command, err, native_stderr_aside, out
from jobs.support.signals import TerminatedError
from pipeline.errors import StoreError


@pytest.fixture
def log_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the messages of native code are put aside."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextlib.contextmanager
def unread(name: str) -> Iterator[io.TextIOWrapper]:
    """Make stdout or stderr a pipe whose reader has gone, with a large buffer."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1 << 16, encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, name, stream)
        patch.setattr(out, "quiet", False)
        patch.setattr(err, "quiet", False)
        yield stream
        out.quiet = err.quiet = True
        out.print()  # a quiet console drops what it could not write
        err.print()


def open_handles() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, not paths


def fail_aside(error: BaseException, words: bytes = b"") -> None:
    """Raise inside, after native code has said something."""
    with native_stderr_aside():
        os.write(2, words)
        raise error


# closed pipes


@pytest.mark.parametrize("code", [0, EXIT_NOT_VERIFIED])
def test_an_exit_code_stays_what_it_is_when_nobody_reads_stdout(code: int) -> None:
    def verb() -> int:
        out.print("first")
        out.print("second")
        return code

    with unread("stdout"):
        assert exit_code(verb) == code
        assert out.quiet


@pytest.mark.parametrize("code", [0, EXIT_NOT_VERIFIED])
def test_so_it_does_when_the_pipe_breaks_at_the_very_end(code: int) -> None:
    def verb() -> int:
        sys.stdout.write("still in the buffer\n")
        return code

    with unread("stdout") as stream:
        assert exit_code(verb) == code
        stream.flush()


def test_a_verb_that_writes_much_ends_well_when_its_reader_has_seen_enough() -> None:
    def verb() -> int:
        for _ in range(1000):
            sys.stdout.write("x" * 1000 + "\n")
        raise AssertionError("the pipe is closed")

    with unread("stdout") as stream:
        assert exit_code(verb) == 0
        stream.flush()


def test_a_broken_pipe_elsewhere_is_no_success() -> None:
    """A lost connection is a BrokenPipeError too; a run that ends by it must not look finished."""
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb"),
        os.fdopen(writer, "w", encoding="utf-8") as stream,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(BrokenPipeError, match="socket"):
            command(raising(BrokenPipeError("socket")))()


def test_work_goes_on_when_nobody_reads_stderr() -> None:
    done: list[bool] = []

    def verb() -> int:
        err.print("progress")
        done.append(err.quiet)
        err.print("progress")
        return 0

    with unread("stderr"):
        assert exit_code(verb) == 0
    assert done == [True]


@pytest.mark.parametrize("words", ["print", "write"])
def test_no_descriptor_is_left_open_by_a_closed_pipe(words: str) -> None:
    def verb() -> int:
        (out.print if words == "print" else sys.stdout.write)("x" * 100_000)
        return 0

    with unread("stdout"):
        before = open_handles()
        assert exit_code(verb) == 0
        assert open_handles() == before


# words of native code


def test_native_words_are_put_aside_and_ours_reach_the_terminal(
    capfd: pytest.CaptureFixture[str], log_folder: Path
) -> None:
    with native_stderr_aside():
        os.write(2, b"native chatter\n")
        err.print("ours")
    os.write(2, b"after\n")
    err.print("ours again")
    assert capfd.readouterr().err == "ours\nafter\nours again\n"
    assert list(log_folder.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("bug"), StoreError("gone")])
def test_when_the_work_fails_the_native_words_are_kept_and_named(
    capfd: pytest.CaptureFixture[str], log_folder: Path, error: Exception
) -> None:
    with pytest.raises(type(error)):
        fail_aside(error, b"native reason\n")
    (log,) = log_folder.iterdir()
    assert log.read_bytes() == b"native reason\n"
    assert capfd.readouterr().err == f"Ray's own messages: {log}\n"


def test_an_empty_log_is_neither_kept_nor_named(capfd: pytest.CaptureFixture[str], log_folder: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_aside(RuntimeError("bug"))
    assert capfd.readouterr().err == ""
    assert list(log_folder.iterdir()) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, TerminatedError])
def test_nothing_is_kept_when_the_user_stops_the_work(
    capfd: pytest.CaptureFixture[str], log_folder: Path, stop: type[BaseException]
) -> None:
    with pytest.raises(stop):
        fail_aside(stop(), b"native chatter\n")
    assert capfd.readouterr().err == ""
    assert list(log_folder.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_descriptor_2_and_the_console_are_as_before(
    capfd: pytest.CaptureFixture[str], log_folder: Path, error: BaseException
) -> None:
    before = os.fstat(2).st_ino, sys.stderr, err._file, open_handles()
    with native_stderr_aside():
        assert os.fstat(2).st_ino != before[0]
        assert err.file is not sys.stderr
    assert (os.fstat(2).st_ino, sys.stderr, err._file, open_handles()) == before
    with pytest.raises(type(error)):
        fail_aside(error, b"words")
    assert (os.fstat(2).st_ino, sys.stderr, err._file, open_handles()) == before


def test_the_console_follows_sys_stderr_afterwards(monkeypatch: pytest.MonkeyPatch, log_folder: Path) -> None:
    with native_stderr_aside():
        pass
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    err.print("ours")
    assert stream.getvalue() == "ours\n"
