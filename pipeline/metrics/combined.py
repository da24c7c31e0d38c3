"""Is the map coherent and small, and all of it at once? Means of several qualities.

Legend: B rows, M maps, (H, W) pixels. E(x) heat map of image x in [0, 1].
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
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
    """Whether the map stays the same when the image is cut down to what the map shows.

    coherency = ( Pearson( E(x), E(y) ) + 1 ) / 2,   y = x E(x) + fill (1 - E(x))

    The method draws its map once more, of the masked image and for the same class. In [0, 1], higher is better. Where
    either map is degenerate Pearson's coefficient does not exist and the value is 0 (interpretation: the paper does not
    say).

    Parameters:
        fill: what shows through where E is 0.
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
        """Each method once more, each on its own masked images."""
        return (Redrawn(f"masked by {self.fill}", 1, shared=False),)


@dataclass(frozen=True, config=STRICT)
class Complexity(ReadsMap):
    """How much of the image the map covers.

    complexity = sum E / (H W)

    In [0, 1], lower is better; 0 for a degenerate map.
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
    """ADCC: harmonic mean of coherency, smallness and faithfulness.

    adcc = 3 / ( 1 / coherency + 1 / (1 - complexity) + 1 / (1 - average_drop) )

    In [0, 1], higher is better; 0 as soon as one part is 0, so for a degenerate map. Reads the softmax probability.

    Parameters:
        fill: what shows through where E is 0.
    """

    fill: Baseline = "mean"

    name: ClassVar[str] = "adcc"
    unit: ClassVar[str] = "harmonic mean, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    reads: ClassVar[Literal["probability", "logit", "probability or logit", "map"]] = "probability"
    paper: ClassVar[Paper] = ADCC

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the mean of each row and map, (B, M)."""
        drop_BM = AverageDrop(fill=self.fill)(batch)
        return harmonic_mean(coherencies(batch, self.fill), 1 - Complexity()(batch), 1 - drop_BM)

    def views(self) -> tuple[View, ...]:
        """Those of average_drop."""
        return AverageDrop(fill=self.fill).views()

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Those of coherency."""
        return Coherency(fill=self.fill).redrawn_maps()


@dataclass(frozen=True, config=STRICT)
class Arcc(ReadsMap):
    """ARCC: harmonic mean of coherency, smallness and ROAD.

    arcc = 3 / ( 1 / coherency + 1 / (1 - complexity) + 1 / r ),   r = min(1, max(0, 2 road))

    In [0, 1], higher is better; 0 as soon as one part is 0, so for a degenerate map. Reads the softmax probability. The
    mean is harmonic as in the authors' code; its description there says geometric.

    Parameters:
        fill: what shows through where E is 0, for coherency.
        percentiles, sigma: of road.
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
        """Compute the mean of each row and map, (B, M)."""
        road_BM = (2 * self._road(batch)).clamp(0, 1)
        return harmonic_mean(coherencies(batch, self.fill), 1 - Complexity()(batch), road_BM)

    def views(self) -> tuple[View, ...]:
        """Those of road."""
        return Road(percentiles=self.percentiles, sigma=self.sigma).views()

    def redrawn_maps(self) -> tuple[Redrawn, ...]:
        """Those of coherency."""
        return Coherency(fill=self.fill).redrawn_maps()

    def _road(self, batch: ScoringBatch) -> Tensor:
        return Road(percentiles=self.percentiles, sigma=self.sigma)(batch)


def coherencies(batch: ScoringBatch, fill: Baseline) -> Tensor:
    """Rescaled correlation of each heat map with the one of the masked image, (B, M); 0 where either is degenerate."""
    one_BMP, other_BMP = (maps.flatten(2).double() for maps in (batch.heatmaps_BMHW, batch.masked_heatmaps(fill)))
    one_BMP, other_BMP = (maps - maps.mean(2, keepdim=True) for maps in (one_BMP, other_BMP))
    norms_BM = one_BMP.norm(dim=2) * other_BMP.norm(dim=2)
    pearson_BM = ((one_BMP * other_BMP).sum(2) / norms_BM.clamp_min(1e-300)).clamp(-1, 1)
    return torch.where(norms_BM > 0, (pearson_BM + 1) / 2, 0.0).float()


def harmonic_mean(*parts_BM: Tensor) -> Tensor:
    """Harmonic mean of numbers >= 0, in float64 inside; 0 where one of them is."""
    parts_KBM = torch.stack(parts_BM).double()
    mean_BM = len(parts_BM) / (1 / parts_KBM.clamp_min(1e-300)).sum(0)
    return torch.where((parts_KBM > 0).all(0) | parts_KBM.isnan().any(0), mean_BM, 0.0).float()
