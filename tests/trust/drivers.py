"""Real drivers for the accidents: started as a user would, watched, signalled, and cleared away."""

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
    """Start a driver in a session of its own."""
    return subprocess.Popen(
        explaining(run_file),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def explaining(run_file: Path, *options: str) -> list[str]:
    """The command of a driver."""
    plain = ("--workers", "2", "--set", "compute.compile=false")
    return [sys.executable, "-m", "jobs.explain", str(run_file), *plain, *options]


@contextmanager
def driving(run_file: Path) -> Iterator[Process]:
    """Start a driver, and leave nothing of it behind, whatever happens."""
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
    """Wait for a driver's end; False when it goes on."""
    try:
        driver.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def signalled(process: int, number: int) -> bool:
    """Send a signal; False when the process has gone."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


def is_at_work(process: int) -> bool:
    """Whether it is a process of the run's tasks or actors, and not one of Ray's node."""
    return command(process).startswith(("ray::Map", "ray::Read", "ray::Ledger", "ray::_RemoteLedger"))


def command(process: int) -> str:
    """Its command line; empty when it has gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
