"""Adapts metrics of users to the interface of ours."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor

from pipeline.cams.base import Paper
from pipeline.cams.plugins import PluginError
from pipeline.errors import first_line
from pipeline.metrics.base import Metric, Redrawn
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import View
from pipeline.model.guard import guarded
from pipeline.settings.plugins import Plugin

_OWN = Paper("its author", "a plug-in", "not published", 0, "")
_Better = Literal["higher", "lower", "neither"]
_Reads = Literal["probability", "logit", "probability or logit", "map"]


@runtime_checkable
class _Callable(Protocol):
    better: str
    unit: str
    reads: str
    curve: bool

    def __call__(self, batch: ScoringBatch) -> Tensor: ...

    def length(self) -> int: ...

    def views(self) -> tuple[View, ...]: ...

    def redrawn_maps(self) -> tuple[Redrawn, ...]: ...


@dataclass(frozen=True)
class PluginMetric(Plugin):
    """A metric of a user's."""

    name: ClassVar[str] = "plug-in"
    paper: ClassVar[Paper] = _OWN
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    @property
    def unit(self) -> str:
        """Return the unit of the values."""
        return str(self.inner.unit)

    @property
    def better(self) -> _Better:
        """Return which direction is better."""
        better: _Better = self.inner.better
        return better

    @property
    def reads(self) -> _Reads:
        """Return what the metric reads, with its parameters."""
        reads: _Reads = self.inner.reads
        if reads == "probability or logit":
            return "probability" if vars(self.inner).get("score", "probability") == "probability" else "logit"
        return reads

    @property
    def curve(self) -> bool:
        """Return whether a value is a list of numbers."""
        return bool(self.inner.curve)

    def identity(self) -> dict[str, Any]:
        """Return what the run's identity records, with what readers of the run must know of the metric."""
        return super().identity() | {"unit": self.unit, "better": self.better, "reads": self.reads}

    def length(self) -> int:
        """Return how many numbers a value has."""
        return int(self.inner.length())

    def views(self) -> tuple[View, ...]:
        """Return the changed images that the model must score."""
        return tuple(self.inner.views())

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return the maps of changed images that the methods must compute."""
        return tuple(self.inner.redrawn_maps())

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute one value per row and map, (B, M), or (B, M, S) for a curve.

        Raises:
            PluginError: the metric raised, changed the model or the heat maps, or returned something else than values.
        """
        kept_BMHW = batch.heatmaps_BMHW.clone()
        with guarded(batch.probe, self.origin):
            try:
                values = self.inner(batch)
            except Exception as error:
                raise PluginError(f"the metric {self.origin} raised {first_line(error)}") from error
        if not torch.equal(kept_BMHW, batch.heatmaps_BMHW):
            batch.heatmaps_BMHW.copy_(kept_BMHW)
            raise PluginError(f"the metric {self.origin} changed the heat maps, which other metrics read")
        return self._checked(values, batch)

    def _checked(self, values: object, batch: ScoringBatch) -> Tensor:
        rows, maps = batch.heatmaps_BMHW.shape[:2]
        wanted = (rows, maps, self.length()) if self.curve else (rows, maps)
        if not isinstance(values, Tensor) or tuple(values.shape) != wanted:
            found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise PluginError(f"the metric {self.origin} returned {found}, not values {wanted}")
        return values.detach().float()


def metric_problem(given: object) -> tuple[str, str]:
    """Say why an object is not a metric, and what to do; empty if it is one."""
    if not isinstance(given, _Callable):
        return (
            "is not a metric: it needs `better` and `__call__(batch)`",
            "inherit from camatlas.Metric; docs/plug-ins.md has an example",
        )
    if given.better not in get_args(_Better):
        return f"has better = {given.better!r}", "make it higher, lower or neither"
    if given.reads not in get_args(_Reads):
        return f"has reads = {given.reads!r}", f"make it one of {', '.join(get_args(_Reads))}"
    return "", ""


def adapted_metric(given: object, origin: str, digest: str) -> Metric:
    """Return a user's metric as one of ours."""
    return cast(Metric, PluginMetric(given, origin, digest))  # its facts are of the object, not of the class
