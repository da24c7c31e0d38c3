"""Stores and disks that fail at a chosen operation, in a chosen way, without randomness and without Ray."""

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import pyarrow.dataset

from pipeline.storage.local_store import LocalStore

Fault = Literal["EIO", "ENOSPC", "EINTR", "partial", "after", "crash"]
"""An error before the operation, half a write (partial), an error after success, or the end of the process."""


class CrashError(BaseException):
    """Simulates the end of the process: nothing is done afterwards, not even cleaning up."""


@dataclass
class Plan:
    """Counts operations and lets one of them fail.

    Attributes:
        at: which operation fails, counted from 0; None lets all of them succeed.
        fault: how it fails.
        operations: names of the operations so far.
        arguments: arguments of each of them: paths and bytes.
    """

    at: int | None = None
    fault: Fault = "EIO"
    operations: list[str] = field(default_factory=list)
    arguments: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        """Tell whether the failing operation has been reached."""
        return self.at is not None and len(self.operations) > self.at

    def run(
        self, name: str, act: Callable[[], Any], half: Callable[[], Any] | None = None, arguments: tuple[Any, ...] = ()
    ) -> Any:
        """Run one operation, or make it fail; `half` runs it incompletely."""
        self.operations.append(name)
        self.arguments.append(arguments)
        if self.fault == "crash" and self.has_failed:
            raise CrashError(name)
        if len(self.operations) - 1 != self.at:
            return act()
        if self.fault == "after":
            _close(act())
        if self.fault == "partial" and half is not None:
            half()
        code = {"after": errno.EIO, "partial": errno.ENOSPC}.get(self.fault) or getattr(errno, self.fault)
        raise OSError(code, os.strerror(code), name)


def _close(result: object) -> None:
    """Close a file or descriptor that the caller will never get."""
    if isinstance(result, io.IOBase):
        result.close()
    elif isinstance(result, int) and not isinstance(result, bool):
        os.close(result)


@dataclass
class FaultStore:
    """A local store in which one operation fails."""

    inner: LocalStore
    plan: Plan

    @property
    def url(self) -> str:
        """Return the location of the store."""
        return self.inner.url

    def publish(self, name: str, data: bytes) -> bool:
        """Publish, or fail."""
        done: bool = self.plan.run(f"publish {name}", lambda: self.inner.publish(name, data))
        return done

    def read(self, name: str) -> bytes:
        """Read, or fail."""
        data: bytes = self.plan.run(f"read {name}", lambda: self.inner.read(name))
        return data

    def names(self, folder: str = "") -> list[str]:
        """List, or fail."""
        names: list[str] = self.plan.run(f"list {folder}", lambda: self.inner.names(folder))
        return names

    def delete(self, name: str) -> None:
        """Delete, or fail."""
        self.plan.run(f"delete {name}", lambda: self.inner.delete(name))

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open parts, or fail."""
        opened: pyarrow.dataset.Dataset = self.plan.run("dataset", lambda: self.inner.dataset(names))
        return opened

    def check_writable(self) -> None:
        """Check, or fail."""
        self.plan.run("check", self.inner.check_writable)


class _FaultyFile:
    """A file that is open for writing, and whose writes are operations of a plan."""

    def __init__(self, file: Any, plan: Plan) -> None:
        self._file, self._plan, self._path = file, plan, Path(file.name)

    def write(self, data: bytes) -> None:
        """Write all, half or nothing."""
        half = data[: len(data) // 2]
        arguments = (self._path, data)
        self._plan.run("write", lambda: self._file.writelines([data]), lambda: self._file.writelines([half]), arguments)

    def flush(self) -> None:
        """Flush the bytes to the system."""
        self._file.flush()

    def fileno(self) -> int:
        """Return the descriptor."""
        number: int = self._file.fileno()
        return number

    def __enter__(self) -> "_FaultyFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextlib.contextmanager
def faulty_disk(plan: Plan) -> Iterator[None]:
    """Make every system call of a store an operation of the plan; fsync does not wait for a real disk."""
    opened = Path.open

    def open_path(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if mode != "xb":
            return opened(self, mode, *rest, **named)
        return _FaultyFile(plan.run("create", lambda: opened(self, mode, *rest, **named), arguments=(self,)), plan)

    def fsync(handle: int) -> None:
        plan.run("fsync", lambda: None, arguments=(Path(f"/proc/self/fd/{handle}").readlink(),))

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(Path, "open", open_path))
        stack.enter_context(patch.object(os, "fsync", fsync))
        for name in ("mkdir", "open", "link", "unlink", "listdir"):
            stack.enter_context(patch.object(os, name, _counted(plan, name, getattr(os, name))))
        yield


def _counted(plan: Plan, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *rest, **named: plan.run(name, lambda: call(*rest, **named), arguments=rest)
