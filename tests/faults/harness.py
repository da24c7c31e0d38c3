"""Killing drivers: starts `camatlas explain` in a separate process, kills it, and checks the run folder."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
from faults.checker import check


def driver(run_file: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Start a driver, as a user would."""
    command = [sys.executable, "-m", "jobs.explain", str(run_file), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(run_file: Path, *options: str, seconds: float = 1200) -> int:
    """Run a driver to its end, and return its exit code."""
    return driver(run_file, *options).wait(seconds)


def kill_after(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Kill -9 a driver after some time; returns False if it ended before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


@dataclass
class Watcher:
    """A plain Parquet reader that reads the run folder again and again while it changes, and records violations."""

    run: Path
    polls: int = 0
    breaches: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if not self.polls:
            self.breaches.append("the reader never saw any rows")

    def _watch(self) -> None:
        read, pause = frozenset[tuple[object, ...]](), 0.05
        while not self._stop.wait(pause):
            found = _parts(self.run)
            if not found or found == read:
                continue
            began = time.monotonic()
            try:
                self._poll()
                read = found
            except Exception as error:  # after any error, a reader would see no rows
                self.breaches.append(f"torn: {type(error).__name__}: {error}")
            pause = max(0.05, time.monotonic() - began)  # half of the time is left to the run

    def _poll(self) -> None:
        """Check that every row occurs once, and that all methods have the same number of images."""
        doubled, halves = duckdb.sql(
            f"""
            WITH rows AS (SELECT * FROM '{self.run}/*.parquet' WHERE error_code IS NULL)
            SELECT (SELECT count(*) - count(DISTINCT (shard, image_key, target, method)) FROM rows),
              (SELECT count(DISTINCT images) - 1 FROM (SELECT count(*) AS images FROM rows GROUP BY method))
            """
        ).fetchall()[0]
        self.polls += 1
        if doubled or halves:
            self.breaches.append(f"{doubled} doubled rows, methods with different numbers of images: {halves}")


def _parts(run: Path) -> frozenset[tuple[object, ...]]:
    """Return what tells one state of the parts of a run from another."""
    found = set()
    for path in run.glob("*.parquet"):
        with suppress(FileNotFoundError):
            about = path.stat()
            found.add((path.name, about.st_ino, about.st_size, about.st_mtime_ns))
    return frozenset(found)


def kill_repeatedly(run_file: Path, run: Path, kills: int, seed: int, longest: float) -> list[str]:
    """Kill the driver at random moments, then let it finish; returns what went wrong.

    Args:
        run_file: the run to start.
        run: its run folder.
        kills: number of kills.
        seed: seed of the moments.
        longest: a driver is killed after at most this many seconds.
    """
    moments = random.Random(seed)
    problems: list[str] = []
    with Watcher(run) as watcher:
        for _ in range(kills):
            started = time.monotonic()
            killed = kill_after(driver(run_file), moments.uniform(1.0, longest))
            problems += [f"after {time.monotonic() - started:.0f} s: {problem}" for problem in check_if_there(run)]
            if not killed:
                break
        code = finish(run_file)
    problems += watcher.breaches
    return problems if code == 0 else [*problems, f"the last driver ended with {code}"]


def check_if_there(run: Path) -> list[str]:
    """Check a run folder, if it exists yet."""
    return check(run) if (run / "run.json").exists() else []
