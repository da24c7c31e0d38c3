"""Remove and debias (ROAD): pixels are removed and guessed from their surroundings, so that no hole gives them away.

Legend: B rows, M maps, n pixels of an image. Y = p(x) softmax probability of the target.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import Imputed, View

Percent = Annotated[float, Field(gt=0, lt=100)]


def _as_floats(given: object) -> object:
    """Take YAML's lists and whole numbers."""
    if not isinstance(given, (list, tuple)):
        return given
    return tuple(float(one) if type(one) is int else one for one in given)


Percentiles = Annotated[
    tuple[Percent, ...],
    Field(min_length=1),
    BeforeValidator(_as_floats),
]
Sigma = Annotated[float, Field(ge=0)]
Order = Literal["most", "least"]
ROAD_PAPER = Paper(
    "Rong, Leemann, Borisov, Kasneci, Kasneci",
    "A Consistent and Efficient Evaluation Strategy for Attribution Methods",
    "ICML", 2022, "arXiv 2202.00449",
)  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class _Road(ReadsMap):
    """What the three readings share."""

    percentiles: Percentiles = (20.0, 40.0, 60.0, 80.0)
    sigma: Sigma = 0.01

    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "pytorch_grad_cam": {"percentiles": tuple(float(percent) for percent in range(10, 100, 10))}
    }
    paper: ClassVar[Paper] = ROAD_PAPER
    orders: ClassVar[tuple[Order, ...]] = ("least", "most")

    def views(self) -> tuple[View, ...]:
        """One image per map, percentile and order."""
        return tuple(Imputed(order, percent / 100, self.sigma) for order in self.orders for percent in self.percentiles)

    def means(self, batch: ScoringBatch) -> list[Tensor]:
        """Mean confidence over the percentiles, (B, M), one an order."""
        found_BMV = torch.cat([batch.scores(view).confidences_BMS for view in self.views()], 2)
        return [found_BMP.mean(2) for found_BMP in found_BMV.chunk(len(self.orders), 2)]


@dataclass(frozen=True, config=STRICT)
class Road(_Road):
    """ROAD combined: what removing the least relevant pixels leaves over removing the most relevant ones.

    road = mean over p of (L_p - M_p) / 2

    M_p is the target's softmax probability after removing the p per cent of the pixels with the largest E, L_p the
    same for the smallest. Exactly round(p n / 100) pixels go, but never all; of tied ones the first in raster order as
    leading ones. Removed pixels become the weighted mean of their eight neighbours (1/6 direct, 1/12 diagonal, scaled
    up at borders), solved for all at once, and Gaussian noise. In [-1/2, 1/2], higher is better; 0 for a map that says
    nothing.

    Parameters:
        percentiles: p.
        sigma: standard deviation of the noise, in normalised units.

    The preset pytorch_grad_cam takes 10, 20 .. 90.
    """

    name: ClassVar[str] = "road"
    unit: ClassVar[str] = "confidence, [-1/2, 1/2]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute half the difference for each row and map, (B, M)."""
        least_BM, most_BM = self.means(batch)
        return (least_BM - most_BM) / 2


@dataclass(frozen=True, config=STRICT)
class _RoadChange(_Road):
    """ROAD of one order, as a change of the confidence."""

    unit: ClassVar[str] = "confidence, [-1, 1]"

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the change for each row and map, (B, M)."""
        return self.means(batch)[0] - batch.evidence.target_confidences_B[:, None]


@dataclass(frozen=True, config=STRICT)
class RoadMorf(_RoadChange):
    """ROAD, most relevant first: how the confidence changes when the most relevant pixels are removed.

    road_morf = mean over p of (M_p - Y)

    M_p as in road. In [-1, 1], lower is better. Shares its passes with road.

    Parameters:
        percentiles, sigma: as of road; the preset pytorch_grad_cam too.
    """

    name: ClassVar[str] = "road_morf"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    orders: ClassVar[tuple[Order, ...]] = ("most",)


@dataclass(frozen=True, config=STRICT)
class RoadLerf(_RoadChange):
    """ROAD, least relevant first: how the confidence changes when the least relevant pixels are removed.

    road_lerf = mean over p of (L_p - Y)

    L_p as in road. In [-1, 1], higher is better. Shares its passes with road.

    Parameters:
        percentiles, sigma: as of road; the preset pytorch_grad_cam too.
    """

    name: ClassVar[str] = "road_lerf"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    orders: ClassVar[tuple[Order, ...]] = ("least",)
