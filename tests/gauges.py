"""What a process takes, as Linux counts it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEGABYTE = 1 << 20


def peak(process: int) -> int:
    """Most memory the process held since it was last asked, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return kilobytes << 10


def spent(process: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def within(seconds: float, megabytes: float, *processes: int) -> Iterator[None]:
    """Fail where what is done inside takes one of the processes more CPU time, or more memory beyond what it held."""
    for process in processes:
        peak(process)  # from now on
    before = {process: (spent(process), peak(process)) for process in processes}
    yield
    for process, (began, held) in before.items():
        assert spent(process) - began <= seconds, f"{spent(process) - began} CPU seconds"
        grown = (peak(process) - held) / MEGABYTE
        assert grown <= megabytes, f"{grown:.0f} MB"
