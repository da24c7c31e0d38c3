"""The device that is measured: its facts, and the seconds that work takes on it."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pipeline.errors import ConfigError
from pipeline.model.arithmetic import check_precision
from pipeline.settings.precision import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
_LEAST, _MOST = 3, 50
"""Fewest and most repetitions of a timing."""


@dataclass(frozen=True)
class Device:
    """The device, and about how long one rate is measured on it."""

    name: str
    seconds: float

    @property
    def is_gpu(self) -> bool:
        """Tell whether it is a GPU."""
        return self.name == "cuda"

    def check(self) -> None:
        """Raise ConfigError if torch cannot use the device."""
        if self.name not in ("cpu", "cuda"):
            raise ConfigError.one("--device", f"'{self.name}' is not a device", "cuda, or cpu to rehearse")
        if self.is_gpu and not torch.cuda.is_available():
            raise ConfigError.one("--device", "torch finds no GPU", "cpu rehearses the measurements")

    def wait(self) -> None:
        """Wait until the device has done what was started."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def once(self, work: Callable[[], object]) -> float:
        """Return the seconds of one call, between two waits for the device."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def median(self, work: Callable[[], object]) -> float:
        """Return the median seconds of several calls after one that warms up."""
        self.once(work)
        taken = list[float]()
        while len(taken) < _LEAST or (len(taken) < _MOST and sum(taken) < self.seconds):
            taken.append(self.once(work))
        return statistics.median(taken)

    def precisions(self) -> list[Precision]:
        """List the precisions that it has."""
        return [precision for precision in PRECISIONS if self._has(precision)]

    def _has(self, precision: Precision) -> bool:
        try:
            check_precision(precision, torch.device(self.name))
        except ConfigError:
            return False
        return True

    def facts(self) -> dict[str, Any]:
        """Describe the device, the machine and the libraries."""
        found: dict[str, Any] = {
            "device": "CPU", "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
            "python": platform.python_version(), "load": round(os.getloadavg()[0], 1),
        }  # fmt: skip
        if self.is_gpu:
            properties = torch.cuda.get_device_properties(0)
            found |= {
                "device": properties.name,
                "device_gigabytes": round(properties.total_memory / 1e9, 1),
                "capability": f"{properties.major}.{properties.minor}",
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            }
        return found
