"""What a metric is."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from pipeline.cams.base import Paper
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import View


@dataclass(frozen=True)
class Redrawn:
    """Maps that a metric has every method draw again, of changed images; equal ones are drawn once.

    Attributes:
        change: what is done to the images.
        times: how many changed images of each row (image, target).
        shared: whether all methods see the same changed images, and so share their forward pass.
    """

    change: str
    times: int
    shared: bool


class Metric(Protocol):
    """A frozen dataclass whose fields are its parameters; its docstring is its definition."""

    name: ClassVar[str]
    paper: ClassVar[Paper]
    unit: ClassVar[str]
    better: ClassVar[Literal["higher", "lower", "neither"]]
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]]
    presets: ClassVar[dict[str, dict[str, Any]]]
    curve: ClassVar[bool]
    """Whether the value is a list of numbers, not one number."""

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute one value per row and map, (B, M) float32, of a curve (B, M, S); NaN where it does not apply."""
        ...

    def length(self) -> int:
        """How many numbers the value has; 1 but for curves."""
        ...

    def views(self) -> tuple[View, ...]:
        """Name the changed images that the model is asked about; equal ones are asked about once."""
        ...

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Name the maps that have to be drawn again."""
        ...


class ReadsMap:
    """Defaults of a metric: one number from the map alone; nothing to ask the model."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "map"
    curve: ClassVar[bool] = False

    def length(self) -> int:
        """One."""
        return 1

    def views(self) -> tuple[View, ...]:
        """None."""
        return ()

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """None."""
        return ()
