"""Counts what a simulated device is asked for, by the line of the product that asks."""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pipeline

_PRODUCT = str(Path(pipeline.__file__).parent)
_TORCH = "/torch/"
_SIMULATION = tuple(str(Path(__file__).with_name(f"{name}.py")) for name in ("ledger", "rules", "simulated"))


@dataclass
class Ledger:
    """What the host asked of the device.

    Attributes:
        waits: how often the host waited for the device, by (reason, line).
        launches: how many operations were started on the device, by (operation, line); views and allocations are none.
        pinned: copies from pinned memory that did not wait, by line.
    """

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    launches: Counter[tuple[str, str]] = field(default_factory=Counter)
    pinned: Counter[str] = field(default_factory=Counter)

    def wait(self, reason: str) -> None:
        self.waits[reason, asking_line()] += 1

    def launch(self, operation: str) -> None:
        self.launches[operation, asking_line()] += 1

    def lines(self) -> dict[str, int]:
        """Return the number of waits of each line, most first."""
        by_line = Counter[str]()
        for (reason, line), times in self.waits.items():
            by_line[f"{line} ({reason})"] += times
        return dict(by_line.most_common())

    def clear(self) -> None:
        for counter in (self.waits, self.launches, self.pinned):
            counter.clear()


def asking_line() -> str:
    """Return the innermost line of the product that is running; without one, of a test or a library."""
    frame, other = sys._getframe(1), ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PRODUCT):
            return f"pipeline{file[len(_PRODUCT) :]}:{frame.f_lineno}"
        if not other and file not in _SIMULATION and _TORCH not in file:
            other = f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return other
