"""Driver processes for fault injection: start, watch, signal and clean up."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pipeline.bench.memory import descendants

Process: TypeAlias = "subprocess.Popen[bytes]"


def started(run_file: Path) -> Process:
    """Start a driver in its own process session."""
    return subprocess.Popen(
        explaining(run_file),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore SIGINT
    )


def explaining(run_file: Path, *options: str) -> list[str]:
    """Return the command line of a driver."""
    fixed = ("--workers", "2", "--set", "compute.compile=false")
    return [sys.executable, "-m", "jobs.explain", str(run_file), *fixed, *options]


@contextmanager
def driving(run_file: Path) -> Iterator[Process]:
    """Start a driver, and kill it and its Ray processes at the end."""
    driver = started(run_file)
    family: set[int] = set()
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.5):
            family.update(descendants(driver.pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield driver
    finally:
        watching.set()
        thread.join()
        if driver.poll() is None:
            driver.kill()
            driver.wait()
        for process in family:
            if "ray" in command(process):
                signalled(process, signal.SIGKILL)


def ended_within(driver: Process, seconds: float) -> bool:
    """Wait for a driver to end; return False if it is still running after the timeout."""
    try:
        driver.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def signalled(process: int, number: int) -> bool:
    """Send a signal; return False if the process no longer exists."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


def is_at_work(process: int) -> bool:
    """Return whether a process runs tasks or actors of a run, in contrast to Ray's own node processes."""
    return command(process).startswith(("ray::Map", "ray::Read", "ray::Ledger", "ray::_RemoteLedger"))


def command(process: int) -> str:
    """Return the command line of a process; empty if it no longer exists."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
