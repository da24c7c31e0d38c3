"""Memory and CPU time of a process, read from /proc."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTE = 1 << 20


def peak(process: int) -> int:
    """Return the peak memory of a process in bytes since the last call, and reset the peak."""
    status = Path(f"/proc/{process}/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return kilobytes << 10


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def within(seconds: float, megabytes: float, *processes: int) -> Iterator[None]:
    """Fail if the work inside takes one of the processes more CPU seconds, or more memory than before, than allowed."""
    for process in processes:
        peak(process)  # resets the peak
    before = {process: (cpu_seconds(process), peak(process)) for process in processes}
    yield
    for process, (began, held) in before.items():
        assert cpu_seconds(process) - began <= seconds, f"{cpu_seconds(process) - began} CPU seconds"
        grown = (peak(process) - held) / MEGABYTE
        assert grown <= megabytes, f"{grown:.0f} MB"
