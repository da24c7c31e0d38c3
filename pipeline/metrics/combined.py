"""Metrics of coherency and complexity, and combined metrics: harmonic means of several qualities of a map.

Legend: B rows, M maps, (H, W) pixels. E(x) heat map of image x in [0, 1].
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Draws, Paper
from pipeline.cams.fusion import RefineCam
from pipeline.metrics.base import ReadsMap, Redrawn
from pipeline.metrics.faithfulness import AverageDrop
from pipeline.metrics.road import Percentiles, Road, Sigma
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import View
from pipeline.model.baselines import Baseline

ADCC = Paper(
    "Poppi, Cornia, Baraldi, Cucchiara", "Revisiting The Evaluation of Class Activation Mapping for Explainability: A "
    "Novel Metric and Experimental Analysis",
    "CVPR Workshops", 2021, "arXiv 2104.10252",
)  # fmt: skip


@dataclass(frozen=True, config=STRICT)
class Coherency(ReadsMap):
    """Correlation between the map of the image and the map of the image masked by that map.

    coherency = ( Pearson( E(x), E(y) ) + 1 ) / 2,   y = x E(x) + fill (1 - E(x))

    E(y) is the same method's map of the masked image y, for the same class. In [0, 1], higher is better. If either map
    is degenerate, Pearson's coefficient is undefined and the value is 0 (interpretation: the paper does not define
    this case).

    Parameters:
        fill: pixel values where E is 0.
    """

    fill: Baseline = "mean"

    name: ClassVar[str] = "coherency"
    unit: ClassVar[str] = "rescaled correlation, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = ADCC

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the coherency of each row and map, (B, M)."""
        return coherencies(batch, self.fill)

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return one map per method, of the image masked by the method's own map."""
        return (Redrawn(f"masked by {self.fill}", 1, shared=False),)


@dataclass(frozen=True, config=STRICT)
class Complexity(ReadsMap):
    """Mean of the heat map: the fraction of the image that the map covers.

    complexity = sum E / (H W)

    H and W are the height and width of the image. In [0, 1], lower is better; 0 for a degenerate map.
    """

    name: ClassVar[str] = "complexity"
    unit: ClassVar[str] = "mean of the heat map, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    paper: ClassVar[Paper] = ADCC

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the mean of each heat map, (B, M)."""
        return batch.heatmaps_BMHW.double().mean((2, 3)).float()


@dataclass(frozen=True, config=STRICT)
class Adcc(ReadsMap):
    """ADCC: harmonic mean of coherency, 1 - complexity and 1 - average_drop.

    adcc = 3 / ( 1 / coherency + 1 / (1 - complexity) + 1 / (1 - average_drop) )

    In [0, 1], higher is better. 0 if one of the three terms is 0, so 0 for a degenerate map. Based on the softmax
    probability.

    Parameters:
        fill: pixel values where E is 0.
    """

    fill: Baseline = "mean"

    name: ClassVar[str] = "adcc"
    unit: ClassVar[str] = "harmonic mean, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    paper: ClassVar[Paper] = ADCC

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the harmonic mean of each row and map, (B, M)."""
        drop_BM = AverageDrop(fill=self.fill)(batch)
        return harmonic_mean(coherencies(batch, self.fill), 1 - Complexity()(batch), 1 - drop_BM)

    def views(self) -> tuple[View, ...]:
        """Return the views of average_drop."""
        return AverageDrop(fill=self.fill).views()

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return the maps that coherency needs."""
        return Coherency(fill=self.fill).redrawn_maps()


@dataclass(frozen=True, config=STRICT)
class Arcc(ReadsMap, Draws):
    """ARCC: harmonic mean of coherency, 1 - complexity and ROAD.

    arcc = 3 / ( 1 / coherency + 1 / (1 - complexity) + 1 / r ),   r = min(1, max(0, 2 road))

    In [0, 1], higher is better. 0 if one of the three terms is 0, so 0 for a degenerate map. Based on the softmax
    probability. The mean is harmonic, as in the authors' code, although the description there says geometric.

    Parameters:
        fill: pixel values where E is 0, for coherency.
        percentiles, sigma: as in road.
    """

    fill: Baseline = "mean"
    percentiles: Percentiles = (20.0, 40.0, 60.0, 80.0)
    sigma: Sigma = 0.01

    name: ClassVar[str] = "arcc"
    unit: ClassVar[str] = "harmonic mean, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = RefineCam.paper

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the harmonic mean of each row and map, (B, M)."""
        road_BM = (2 * self._road(batch)).clamp(0, 1)
        return harmonic_mean(coherencies(batch, self.fill), 1 - Complexity()(batch), road_BM)

    def views(self) -> tuple[View, ...]:
        """Return the views of road."""
        return Road(percentiles=self.percentiles, sigma=self.sigma).views()

    @property
    def draws(self) -> bool:
        """Whether it draws numbers: if there is noise."""
        return self.sigma > 0

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Return the maps that coherency needs."""
        return Coherency(fill=self.fill).redrawn_maps()

    def _road(self, batch: ScoringBatch) -> Tensor:
        return Road(percentiles=self.percentiles, sigma=self.sigma)(batch)


def coherencies(batch: ScoringBatch, fill: Baseline) -> Tensor:
    """Correlate each heat map with that of the masked image, rescaled to [0, 1], (B, M); 0 if either is degenerate."""
    one_BMP, other_BMP = (maps.flatten(2).double() for maps in (batch.heatmaps_BMHW, batch.masked_heatmaps(fill)))
    one_BMP, other_BMP = (maps - maps.mean(2, keepdim=True) for maps in (one_BMP, other_BMP))
    norms_BM = one_BMP.norm(dim=2) * other_BMP.norm(dim=2)
    pearson_BM = ((one_BMP * other_BMP).sum(2) / norms_BM.clamp_min(1e-300)).clamp(-1, 1)
    return torch.where(norms_BM > 0, (pearson_BM + 1) / 2, 0.0).float()


def harmonic_mean(*parts_BM: Tensor) -> Tensor:
    """Compute the harmonic mean of numbers >= 0, in float64 internally; 0 where one of them is 0."""
    parts_KBM = torch.stack(parts_BM).double()
    mean_BM = len(parts_BM) / (1 / parts_KBM.clamp_min(1e-300)).sum(0)
    return torch.where((parts_KBM > 0).all(0) | parts_KBM.isnan().any(0), mean_BM, 0.0).float()
