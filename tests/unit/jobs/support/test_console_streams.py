"""The streams of a command: closed pipes, and messages of native code that are captured."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from verbs import exit_code, raising

from jobs.support.console import EXIT_NOT_VERIFIED, capture_native_stderr, command, err, out
from jobs.support.signals import TerminatedError
from pipeline.errors import StoreError


@pytest.fixture
def log_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for the captured messages of native code."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextlib.contextmanager
def closed_pipe(name: str) -> Iterator[io.TextIOWrapper]:
    """Make stdout or stderr a pipe whose reading end is closed, with a large buffer."""
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


def fail_after_writing(error: BaseException, words: bytes = b"") -> None:
    """Write to file descriptor 2 as native code does, then raise an error, both inside capture_native_stderr."""
    with capture_native_stderr():
        os.write(2, words)
        raise error


# closed pipes


@pytest.mark.parametrize("code", [0, EXIT_NOT_VERIFIED])
def test_a_closed_pipe_does_not_change_the_exit_code(code: int) -> None:
    def verb() -> int:
        out.print("first")
        out.print("second")
        return code

    with closed_pipe("stdout"):
        assert exit_code(verb) == code
        assert out.quiet


@pytest.mark.parametrize("code", [0, EXIT_NOT_VERIFIED])
def test_a_pipe_that_breaks_at_the_final_flush_does_not_change_the_exit_code(code: int) -> None:
    def verb() -> int:
        sys.stdout.write("still in the buffer\n")
        return code

    with closed_pipe("stdout") as stream:
        assert exit_code(verb) == code
        stream.flush()


def test_a_verb_that_writes_to_a_closed_pipe_ends_with_0() -> None:
    def verb() -> int:
        for _ in range(1000):
            sys.stdout.write("x" * 1000 + "\n")
        raise AssertionError("the pipe is closed")

    with closed_pipe("stdout") as stream:
        assert exit_code(verb) == 0
        stream.flush()


def test_a_broken_pipe_other_than_stdout_is_an_error() -> None:
    """A lost connection is a BrokenPipeError too, and a run that ends with it must not look finished."""
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb"),
        os.fdopen(writer, "w", encoding="utf-8") as stream,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(BrokenPipeError, match="socket"):
            command(raising(BrokenPipeError("socket")))()


def test_work_goes_on_when_stderr_is_closed() -> None:
    done: list[bool] = []

    def verb() -> int:
        err.print("progress")
        done.append(err.quiet)
        err.print("progress")
        return 0

    with closed_pipe("stderr"):
        assert exit_code(verb) == 0
    assert done == [True]


@pytest.mark.parametrize("words", ["print", "write"])
def test_a_closed_pipe_leaks_no_file_descriptor(words: str) -> None:
    def verb() -> int:
        (out.print if words == "print" else sys.stdout.write)("x" * 100_000)
        return 0

    with closed_pipe("stdout"):
        before = open_handles()
        assert exit_code(verb) == 0
        assert open_handles() == before


# messages of native code


def test_native_messages_are_captured_and_ours_reach_the_terminal(
    capfd: pytest.CaptureFixture[str], log_folder: Path
) -> None:
    with capture_native_stderr():
        os.write(2, b"native chatter\n")
        err.print("ours")
    os.write(2, b"after\n")
    err.print("ours again")
    assert capfd.readouterr().err == "ours\nafter\nours again\n"
    assert list(log_folder.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("bug"), StoreError("gone")])
def test_when_the_work_fails_the_native_messages_are_kept_and_named(
    capfd: pytest.CaptureFixture[str], log_folder: Path, error: Exception
) -> None:
    with pytest.raises(type(error)):
        fail_after_writing(error, b"native reason\n")
    (log,) = log_folder.iterdir()
    assert log.read_bytes() == b"native reason\n"
    assert capfd.readouterr().err == f"messages of Ray: {log}\n"


def test_an_empty_log_is_neither_kept_nor_named(capfd: pytest.CaptureFixture[str], log_folder: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_after_writing(RuntimeError("bug"))
    assert capfd.readouterr().err == ""
    assert list(log_folder.iterdir()) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, TerminatedError])
def test_nothing_is_kept_when_the_user_stops_the_work(
    capfd: pytest.CaptureFixture[str], log_folder: Path, stop: type[BaseException]
) -> None:
    with pytest.raises(stop):
        fail_after_writing(stop(), b"native chatter\n")
    assert capfd.readouterr().err == ""
    assert list(log_folder.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_descriptor_2_and_the_console_are_restored(
    capfd: pytest.CaptureFixture[str], log_folder: Path, error: BaseException
) -> None:
    before = os.fstat(2).st_ino, sys.stderr, err._file, open_handles()
    with capture_native_stderr():
        assert os.fstat(2).st_ino != before[0]
        assert err.file is not sys.stderr
    assert (os.fstat(2).st_ino, sys.stderr, err._file, open_handles()) == before
    with pytest.raises(type(error)):
        fail_after_writing(error, b"words")
    assert (os.fstat(2).st_ino, sys.stderr, err._file, open_handles()) == before


def test_the_console_follows_sys_stderr_afterwards(monkeypatch: pytest.MonkeyPatch, log_folder: Path) -> None:
    with capture_native_stderr():
        pass
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    err.print("ours")
    assert stream.getvalue() == "ours\n"
