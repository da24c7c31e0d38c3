"""Remove and debias (ROAD): change of the confidence when pixels are removed and imputed from their surroundings.

Legend: B rows, M maps, n pixels of an image. Y = p(x) softmax probability of the target.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Draws, Paper
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import Imputed, View

Percent = Annotated[float, Field(gt=0, lt=100)]


def _as_floats(value: object) -> object:
    """Convert a list or tuple, as YAML gives it, to a tuple with floats for whole numbers."""
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(float(item) if type(item) is int else item for item in value)


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
class _Road(ReadsMap, Draws):
    """Shared part of road, road_morf and road_lerf."""

    percentiles: Percentiles = (20.0, 40.0, 60.0, 80.0)
    sigma: Sigma = 0.01

    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "pytorch_grad_cam": {"percentiles": tuple(float(percent) for percent in range(10, 100, 10))}
    }
    paper: ClassVar[Paper] = ROAD_PAPER
    orders: ClassVar[tuple[Order, ...]] = ("least", "most")

    def views(self) -> tuple[View, ...]:
        """Return one changed image per map, percentile and order."""
        return tuple(Imputed(order, percent / 100, self.sigma) for order in self.orders for percent in self.percentiles)

    @property
    def draws(self) -> bool:
        """Whether it draws numbers: if there is noise."""
        return self.sigma > 0

    def means(self, batch: ScoringBatch) -> list[Tensor]:
        """Compute the mean confidence over the percentiles, (B, M), for each order."""
        confidences_BMV = torch.cat([batch.scores(view).confidences_BMS for view in self.views()], 2)
        return [confidences_BMP.mean(2) for confidences_BMP in confidences_BMV.chunk(len(self.orders), 2)]


@dataclass(frozen=True, config=STRICT)
class Road(_Road):
    """ROAD combined: confidence after removing the least relevant pixels minus that after removing the most relevant.

    road = mean over p of (L_p - M_p) / 2

    M_p is the target's softmax probability after removing the p per cent of the pixels with the largest E, L_p after
    removing those with the smallest. Of the n pixels, exactly round(p n / 100) are removed, but never all; tied pixels
    rank in raster order. Removed pixels are replaced by the weighted mean of their eight neighbours (1/6 direct, 1/12
    diagonal, scaled up at borders), solved jointly, plus Gaussian noise. In [-1/2, 1/2], higher is better; near 0 for
    an uninformative map.

    Parameters:
        percentiles: values of p.
        sigma: standard deviation of the noise, in normalised units.

    The preset pytorch_grad_cam uses 10, 20 .. 90.
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
    """Shared part of road_morf and road_lerf: change of the confidence for one order of removal."""

    unit: ClassVar[str] = "confidence, [-1, 1]"

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the change for each row and map, (B, M)."""
        return self.means(batch)[0] - batch.evidence.target_confidences_B[:, None]


@dataclass(frozen=True, config=STRICT)
class RoadMorf(_RoadChange):
    """ROAD, most relevant first: change of the confidence when the most relevant pixels are removed.

    road_morf = mean over p of (M_p - Y)

    M_p as in road; Y is the target's softmax probability on the clean image. In [-1, 1], lower is better. Shares its
    passes with road.

    Parameters:
        percentiles, sigma: as in road, and so is the preset pytorch_grad_cam.
    """

    name: ClassVar[str] = "road_morf"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    orders: ClassVar[tuple[Order, ...]] = ("most",)


@dataclass(frozen=True, config=STRICT)
class RoadLerf(_RoadChange):
    """ROAD, least relevant first: change of the confidence when the least relevant pixels are removed.

    road_lerf = mean over p of (L_p - Y)

    L_p as in road; Y is the target's softmax probability on the clean image. In [-1, 1], higher is better. Shares its
    passes with road.

    Parameters:
        percentiles, sigma: as in road, and so is the preset pytorch_grad_cam.
    """

    name: ClassVar[str] = "road_lerf"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    orders: ClassVar[tuple[Order, ...]] = ("least",)
