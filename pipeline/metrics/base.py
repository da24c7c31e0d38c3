"""Interface of metrics: their definition, inputs and required passes."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from pipeline.cams.base import Paper
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import View


@dataclass(frozen=True)
class Redrawn:
    """Maps of changed images that a metric needs from every method; equal requests are computed once.

    Attributes:
        change: description of the change of the images.
        times: number of changed images per row (image, target).
        shared: whether all methods use the same changed images, and so share their forward pass.
    """

    change: str
    times: int
    shared: bool


class Metric(Protocol):
    """Interface of a metric: a frozen dataclass whose fields are parameters and whose docstring is its page."""

    name: ClassVar[str]
    paper: ClassVar[Paper]
    unit: ClassVar[str]
    better: ClassVar[Literal["higher", "lower", "neither"]]
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]]
    presets: ClassVar[dict[str, dict[str, Any]]]
    curve: ClassVar[bool]
    """Whether the value is a list of numbers instead of one number."""

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute one value per row and map, (B, M) float32, or (B, M, S) for a curve; NaN where it does not apply."""
        ...

    def length(self) -> int:
        """Return how many numbers a value has; 1 except for curves."""
        ...

    def views(self) -> tuple[View, ...]:
        """Return the changed images that the model must score; equal views are scored once."""
        ...

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return the maps of changed images that the methods must compute."""
        ...


class ReadsMap:
    """Defaults of a metric: one number, computed from the map alone, without a pass through the model."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "map"
    curve: ClassVar[bool] = False

    def length(self) -> int:
        """Return 1: the value is one number."""
        return 1

    def views(self) -> tuple[View, ...]:
        """Return no views: the model is not run."""
        return ()

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return no maps: none is computed again."""
        return ()


def reads_confidences(metric: Metric) -> bool:
    """Tell whether a metric with its parameters reads confidences, which raw outputs do not have."""
    if metric.reads == "probability or logit":
        score: str = getattr(metric, "score")  # noqa: B009 - a parameter of such metrics alone
        return score == "probability"
    return metric.reads == "probability"
