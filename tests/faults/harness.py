"""Killing drivers: start `camatlas explain` in a process of its own, end it without mercy, look at what is there."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
from faults.checker import check


def driver(run_file: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Start a driver, as a user would."""
    command = [sys.executable, "-m", "jobs.explain", str(run_file), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(run_file: Path, *options: str, seconds: float = 1200) -> int:
    """Run a driver to its end; gives its exit code."""
    return driver(run_file, *options).wait(seconds)


def kill_after(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    """Kill -9 a driver after some time; False when it ended by itself before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


@dataclass
class Watcher:
    """A plain reader that polls the run folder the whole time, as any user of Parquet would."""

    run: Path
    looks: int = 0
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
        if not self.looks:
            self.breaches.append("the reader saw nothing all the while")

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            if next(self.run.glob("*.parquet"), None) is None:
                continue
            try:
                self._look()
            except Exception as error:  # whatever it is, the reader would see no more
                self.breaches.append(f"torn: {type(error).__name__}: {error}")

    def _look(self) -> None:
        """Every row once, every chunk whole: each image with a row of each method."""
        doubled, halves = duckdb.sql(
            f"""
            WITH rows AS (SELECT * FROM '{self.run}/*.parquet' WHERE error_code IS NULL)
            SELECT (SELECT count(*) - count(DISTINCT (shard, image_key, target, method)) FROM rows),
              (SELECT count(DISTINCT images) - 1 FROM (SELECT count(*) AS images FROM rows GROUP BY method))
            """
        ).fetchall()[0]
        self.looks += 1
        if doubled or halves:
            self.breaches.append(f"{doubled} doubled rows, methods with different numbers of images: {halves}")


def kill_repeatedly(run_file: Path, run: Path, kills: int, seed: int, longest: float) -> list[str]:
    """Kill the driver at random moments, then let it finish; gives what went wrong.

    Args:
        run_file: what to run.
        run: its run folder.
        kills: how often.
        seed: of the moments.
        longest: seconds within which a driver is killed.
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
    """Judge a run folder that may not have been made yet."""
    return check(run) if (run / "run.json").exists() else []
