"""Stores and disks that fail at a chosen operation, in a chosen way; no randomness, no engine."""

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
"""What happens: an error before the operation, half a write, an error after success, or the end of the process."""


class CrashError(BaseException):
    """The process is gone: from here on nothing is done any more, cleaning up included."""


@dataclass
class Plan:
    """Counts operations and lets one of them fail.

    Attributes:
        at: which operation fails, counted from 0; None lets all of them pass.
        fault: how it fails.
        told: the operations so far.
        given: what each of them was about: paths and bytes.
    """

    at: int | None = None
    fault: Fault = "EIO"
    told: list[str] = field(default_factory=list)
    given: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def struck(self) -> bool:
        """Whether the operation that fails has come."""
        return self.at is not None and len(self.told) > self.at

    def run(
        self, name: str, act: Callable[[], Any], half: Callable[[], Any] | None = None, given: tuple[Any, ...] = ()
    ) -> Any:  # noqa: ANN401
        """Do one operation, or fail it; `half` does it incompletely."""
        self.told.append(name)
        self.given.append(given)
        if self.fault == "crash" and self.struck:
            raise CrashError(name)
        if len(self.told) - 1 != self.at:
            return act()
        if self.fault == "after":
            _let_go(act())
        if self.fault == "partial" and half is not None:
            half()
        code = {"after": errno.EIO, "partial": errno.ENOSPC}.get(self.fault) or getattr(errno, self.fault)
        raise OSError(code, os.strerror(code), name)


def _let_go(result: object) -> None:
    """Close what the caller will never see: a file, or the descriptor that `open` gave."""
    if isinstance(result, io.IOBase):
        result.close()
    elif isinstance(result, int) and not isinstance(result, bool):
        os.close(result)


@dataclass
class FaultStore:
    """A local store of which one verb fails."""

    inner: LocalStore
    plan: Plan

    @property
    def url(self) -> str:
        """Where the store is."""
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
    """A file open for writing whose writes are operations of a plan."""

    def __init__(self, file: Any, plan: Plan) -> None:  # noqa: ANN401 - a binary file
        self._file, self._plan, self._path = file, plan, Path(file.name)

    def write(self, data: bytes) -> None:
        """Write all, half or nothing."""
        half = data[: len(data) // 2]
        given = (self._path, data)
        self._plan.run("write", lambda: self._file.writelines([data]), lambda: self._file.writelines([half]), given)

    def flush(self) -> None:
        """Hand the bytes to the system."""
        self._file.flush()

    def fileno(self) -> int:
        """The descriptor."""
        number: int = self._file.fileno()
        return number

    def __enter__(self) -> "_FaultyFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextlib.contextmanager
def faulty_disk(plan: Plan) -> Iterator[None]:
    """Make every call that a store sends to the system an operation of the plan; nothing waits for a real disk."""
    opened = Path.open

    def open_path(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:  # noqa: ANN401 - the shape of open
        if mode != "xb":
            return opened(self, mode, *rest, **named)
        return _FaultyFile(plan.run("create", lambda: opened(self, mode, *rest, **named), given=(self,)), plan)

    def fsync(handle: int) -> None:
        plan.run("fsync", lambda: None, given=(Path(f"/proc/self/fd/{handle}").readlink(),))

    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(Path, "open", open_path))
        stack.enter_context(patch.object(os, "fsync", fsync))
        for name in ("mkdir", "open", "link", "unlink", "listdir"):
            stack.enter_context(patch.object(os, name, _counted(plan, name, getattr(os, name))))
        yield


def _counted(plan: Plan, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *rest, **named: plan.run(name, lambda: call(*rest, **named), given=rest)
