"""How many workers a machine holds, and how many CPUs are left for reading; known without the engine."""

import math
import os
from dataclasses import dataclass

CPU_THREADS = 2
"""Threads of one CPU worker; more workers are better than more threads."""

CROWDED = 1.25
"""Workers whose threads fill all cores are slower by this than alone: Ray's own processes take turns with them."""

_LEAST_CPUS = 4
"""Fewer logical CPUs could leave none for reading beside the actors."""

_READING_CPUS = 2
"""Logical CPUs that are kept for reading and committing where workers compute on CPUs."""


def logical_cpus() -> int:
    """CPUs that a local engine is told of."""
    return max(_LEAST_CPUS, os.cpu_count() or 1)


def workers_for(device: str, cpus: float, gpus: float) -> int:
    """Choose the number of workers: one a GPU, or as many two-thread ones as leave CPUs for reading."""
    if device == "cuda":
        return max(1, int(gpus))
    return max(1, int((cpus - _READING_CPUS) // CPU_THREADS))


@dataclass(frozen=True)
class Machines:
    """Where a run is planned to happen: machines like this one.

    Attributes:
        device: `cpu` or `cuda`.
        workers: number of actors that hold the model.
        cpus: real CPUs of all machines together.
        readers: how many shards can be read and decoded at a time.
    """

    device: str
    workers: int
    cpus: int
    readers: int

    @classmethod
    def like_this_one(cls, asked_device: str, asked_workers: int | str, gpus: int, *, several: bool) -> "Machines":
        """Plan for machines of this kind, with `gpus` each; `several` says that a cluster may bring more than one."""
        device = asked_device if asked_device != "auto" else "cuda" if gpus else "cpu"
        here = workers_for(device, logical_cpus(), gpus)
        workers = here if asked_workers == "auto" else int(asked_workers)
        count = math.ceil(workers / here) if several or device == "cuda" else 1
        readers = count * logical_cpus() - (0 if device == "cuda" else workers * CPU_THREADS)
        return cls(device, workers, count * (os.cpu_count() or 1), max(_READING_CPUS, readers))

    @property
    def busy_cpus(self) -> int:
        """CPUs that one worker keeps busy."""
        return CPU_THREADS if self.device == "cpu" else 1

    @property
    def _slowdown(self) -> float:
        return CROWDED if self.device == "cpu" and self.workers * CPU_THREADS >= self.cpus else 1.0

    def seconds(self, model: float, reading: float, shards: int) -> float:
        """Wall-clock seconds of the work of a run: whatever is scarcest sets the pace.

        Args:
            model: seconds of one worker for all images.
            reading: CPU seconds to read, decode and commit all images; hidden behind the model where CPUs allow it.
            shards: a shard is read by one task.
        """
        return max(
            model * self._slowdown / self.workers,
            reading / min(self.readers, shards),
            (model * self.busy_cpus + reading) / self.cpus,
        )
