"""Memory of processes on Linux, and its growth."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_WORKER = b"ray::MapWorker"
"""Start of the command that Ray gives a process with an actor of a map stage."""


def anonymous_megabytes(process: int) -> float:
    """Return the private memory of a process in MB (10^6 bytes); 0 if it has ended.

    Pages of files and of Ray's shared object store do not count, because they vary with what is read.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:"))


def worker_processes() -> list[int]:
    """List the processes of the actors in runs that this process started."""
    return [process for process in descendants(os.getpid()) if _command(process).startswith(_WORKER)]


def descendants(process: int) -> list[int]:
    """List all child processes of a process, and their child processes, at any depth."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (parent := _parent(int(entry.name))) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found, pending = [], list(children.get(process, ()))
    while pending:
        found.append(pending.pop())
        pending += children.get(found[-1], ())
    return found


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Fit the least-squares slope of y over x; raises ValueError for fewer than two different x."""
    if len(set(xs)) < 2:
        raise ValueError("a slope needs two different x")
    return float(np.polyfit(np.asarray(xs, float), np.asarray(ys, float), 1)[0])


def _parent(process: int) -> int | None:
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
