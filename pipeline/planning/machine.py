"""Looks at the machine for the comment in a new run file; nothing is imported for it."""

import os
from dataclasses import dataclass
from pathlib import Path

_GPUS = Path("/proc/driver/nvidia/gpus")
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Machine:
    """What a run would find here: CPUs that this process may use, NVIDIA GPUs, and bytes of memory."""

    cpus: int
    gpus: int
    memory: int

    def __str__(self) -> str:
        return f"{_counted(self.cpus, 'CPU')}, {_counted(self.gpus, 'GPU')}, {self.memory / 2**30:.0f} GiB of memory"


def this_machine(gpus: Path = _GPUS, cgroup: Path = _CGROUP) -> Machine:
    """Look at this machine, or at the container that the process is in."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = int(cgroup.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or one without a limit
        allowed = installed
    return Machine(
        len(os.sched_getaffinity(0)), len(list(gpus.iterdir())) if gpus.is_dir() else 0, min(installed, allowed)
    )


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
