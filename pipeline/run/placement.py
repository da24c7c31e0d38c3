"""How many workers a machine holds, and how many CPUs stay free for reading; computed without Ray."""

import math
import os
from dataclasses import dataclass

from pipeline.model.memory import FREED_MEMORY_IS_KEPT

WORKER_ENVIRONMENT = FREED_MEMORY_IS_KEPT | {
    # A thread that waits for the others sleeps. If it spins, as by default, it takes the core that these need: a pass
    # then takes many times as long as soon as anything else runs.
    "OMP_WAIT_POLICY": "passive",
}
"""Environment variables of workers; libraries read them when they are loaded."""

CPU_THREADS = 2
"""Threads of one CPU worker; more workers are faster than more threads."""

CROWDING = 1.25
"""Slowdown of workers whose threads fill all cores: Ray's own processes compete with them."""

_LEAST_CPUS = 4
"""Least number of logical CPUs; with fewer, the actors could leave none for reading."""

_READING_CPUS = 2
"""Logical CPUs reserved for reading and committing when workers compute on CPUs."""


def logical_cpus() -> int:
    """Return the number of CPUs that a local Ray is started with."""
    return max(_LEAST_CPUS, os.cpu_count() or 1)


def workers_for(device: str, cpus: float, gpus: float, gpus_per_worker: float = 1.0) -> int:
    """Choose the number of workers: as GPUs have room for, or two-thread CPU workers that leave CPUs for reading."""
    if device == "cuda":
        return max(1, int(gpus) * _workers_per_gpu(gpus_per_worker))
    return max(1, int((cpus - _READING_CPUS) // CPU_THREADS))


def gpus_for(workers: int, gpus_per_worker: float) -> int:
    """Return the number of GPUs that workers need; a worker is never spread over two."""
    return math.ceil(workers / _workers_per_gpu(gpus_per_worker))


def _workers_per_gpu(gpus_per_worker: float) -> int:
    return int(1 / gpus_per_worker + 1e-9)  # 1 / 0.1 is a little less than 10


def gpu_shortage(workers: int, gpus_per_worker: float, gpus: float) -> str:
    """Say how many GPUs are missing; empty if none is."""
    needed = gpus_for(workers, gpus_per_worker)
    return "" if gpus >= needed else f"waiting for {needed} GPU{'s' * (needed != 1)}; the cluster has {gpus:g}"


@dataclass(frozen=True)
class Machines:
    """The machines that a run is planned for, all like this one.

    Attributes:
        device: `cpu` or `cuda`.
        workers: number of actors that hold the model.
        cpus: real CPUs of all machines together.
        readers: how many shards can be read and decoded at the same time.
        gpus_per_worker: the share of a GPU that a worker computes on.
    """

    device: str
    workers: int
    cpus: int
    readers: int
    gpus_per_worker: float = 1.0

    @classmethod
    def like_this_one(
        cls, device: str, workers: int | str, gpus: int, *, several: bool, gpus_per_worker: float = 1.0
    ) -> "Machines":
        """Describe machines like this one, with `gpus` each; `several` allows for more than one, as in a cluster."""
        device = device if device != "auto" else "cuda" if gpus else "cpu"
        per_machine = workers_for(device, logical_cpus(), gpus, gpus_per_worker)
        total = per_machine if workers == "auto" else int(workers)
        count = math.ceil(total / per_machine) if several or device == "cuda" else 1
        readers = count * logical_cpus() - (0 if device == "cuda" else total * CPU_THREADS)
        share = gpus_per_worker if device == "cuda" else 1.0
        return cls(device, total, count * (os.cpu_count() or 1), max(_READING_CPUS, readers), share)

    @property
    def busy_cpus(self) -> int:
        """Return the number of CPUs that one worker keeps busy."""
        return CPU_THREADS if self.device == "cpu" else 1

    @property
    def _slowdown(self) -> float:
        return CROWDING if self.device == "cpu" and self.workers * CPU_THREADS >= self.cpus else 1.0

    def seconds(self, model: float, reading: float, shards: int) -> float:
        """Estimate the wall-clock seconds of a run, which the scarcest resource decides.

        Args:
            model: seconds that one worker needs for all images.
            reading: CPU seconds to read, decode and commit all images; overlaps with the model where CPUs allow it.
            shards: number of shards, each of which is read by one task.
        """
        return max(
            model * self._slowdown / max(1.0, self.workers * self.gpus_per_worker),
            reading / min(self.readers, shards),
            (model * self.busy_cpus + reading) / self.cpus,
        )
