"""All measurements of a device, one after the other, within a given time; what is found is kept after each.

The most important come first: whether values are right, then speed, then failures.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.bench.device.cases import CASES, Case, timed_cases
from pipeline.bench.device.clock import Device
from pipeline.bench.device.correctness import compared_maps, compared_metrics
from pipeline.bench.device.decoding import decoding
from pipeline.bench.device.failures import compiled, failures
from pipeline.bench.device.host import host_costs
from pipeline.bench.device.node import Node, Projection
from pipeline.bench.device.scale import Scale, scale_for
from pipeline.bench.device.speed import ceilings, forwards
from pipeline.bench.device.subjects import untrained
from pipeline.cams import METHODS
from pipeline.errors import first_line
from pipeline.metrics import METRICS
from pipeline.model.memory import kept_freed_memory
from pipeline.model.trial import LoadedModel

_A_CASE = 15.0
"""Seconds that must be left for one more case."""
FAILED = "failed"
"""Key of the sentence that stands for a section without a result."""

Report = Callable[[str], None]


@dataclass
class Session:
    """The measurements of one device.

    Attributes:
        device, scale: what is measured, and how much.
        seconds: for all measurements; a section for which too little is left is left out.
        out: JSON file that holds what was found so far; None keeps none.
        say: gets the progress.
        methods, metrics, cases: what is compared and timed.
        found: the results by section.
    """

    device: Device
    scale: Scale
    seconds: float
    out: Path | None = None
    say: Report = lambda _: None
    methods: tuple[str, ...] = tuple(METHODS)
    metrics: tuple[str, ...] = tuple(METRICS)
    cases: tuple[Case, ...] = CASES
    found: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - (time.monotonic() - self._began)

    def run(self) -> dict[str, Any]:
        """Run all sections; one that fails, or for which no time is left, says so and does not hold up the others."""
        count = self.scale.compared
        sections: dict[str, tuple[float, Callable[[], Any]]] = {
            "ceilings": (5, lambda: ceilings(self.device, self.scale)),
            "maps": (30, lambda: compared_maps(self.device, count, self.methods)),
            "metrics": (15, lambda: compared_metrics(self.device, count, self.metrics)),
            "forwards": (20, self._forwards),
            "cases": (20, self._cases),
            "failures": (20, lambda: failures(self.device, self.scale, self.left / 2)),
            "decoding": (15, lambda: decoding(self.device, self.scale)),
            "projection": (10, self._projection),
            "compiled": (20, lambda: compiled(self.device, self.scale, self.left)),
        }
        with torch.inference_mode(False), kept_freed_memory():
            for name, (least, work) in {"machine": (0, self.device.facts), **sections}.items():
                self._section(name, least, work)
        return self.found

    def _section(self, name: str, least: float, work: Callable[[], Any]) -> None:
        began = time.monotonic()
        if self.left < least:
            self.found[name] = {FAILED: f"left out: {self.left:.0f} s were left"}
        else:
            self.say(f"{name} ({self.left:.0f} s left)")
            try:
                self.found[name] = plain(work())
            except Exception as error:  # whatever a device raises
                self.found[name] = {FAILED: first_line(error)}
        self.found.setdefault("seconds", {})[name] = time.monotonic() - began
        if self.out is not None:
            self.out.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")

    def _forwards(self) -> dict[str, Any]:
        peaks = self.found["ceilings"].get("product_teraflops", {})
        return forwards(self.device, self.scale, self._network, peaks)

    def _cases(self) -> list[dict[str, Any]]:
        engine = self.found["forwards"].get("engine bf16" if self.device.is_gpu else "engine fp32", {})
        rate = engine.get("images_per_second")
        has_time = lambda: self.left > _A_CASE  # noqa: E731 - read once for each case
        return timed_cases(self.device, self.scale, self._network, rate, self.say, self.cases, has_time)

    @cached_property
    def _network(self) -> LoadedModel:
        return untrained(self.scale.network, self.scale.side)

    def _projection(self) -> dict[str, Any]:
        costs = host_costs(self.device)
        rates = self.found["decoding"].get("one_core", {})
        return {
            resizer: Projection(Node(), replace(costs, decoding=1 / rate)).as_json() for resizer, rate in rates.items()
        }


def measured_device(
    name: str, seconds: float | None = None, out: Path | None = None, say: Report = lambda _: None
) -> dict[str, Any]:
    """Measure a device, `cuda`, or `cpu` to rehearse, and return what was found, as JSON holds it.

    Raises:
        ConfigError: there is no such device.
    """
    scale = scale_for(name)
    device = Device(name, scale.seconds)
    device.check()
    return Session(device, scale, seconds or scale.budget, out, say).run()


def plain(value: Any) -> Any:  # noqa: ANN401 - any result
    """Return a result as JSON holds it: dataclasses as their fields, and NaN and infinity as null."""
    if is_dataclass(value):
        return plain(vars(value))
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
