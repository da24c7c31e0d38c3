"""Metrics of the map's shape: computed from the map alone, and neither good nor bad by themselves.

Legend: B rows, M maps, (H, W) pixels, n = H W. E heat map in [0, 1].
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.scoring import ScoringBatch


@dataclass(frozen=True, config=STRICT)
class Sparsity(ReadsMap):
    """Gini index of the map: how unevenly its energy is distributed over the pixels.

    sparsity = sum_i (2 i - n - 1) a_i / (n sum_i a_i),   a_1 <= ... <= a_n the values of E, i = 1 .. n

    In [0, 1): 0 for a uniform map, near 1 for a single pixel; higher is sparser. NaN for a degenerate map.
    """

    name: ClassVar[str] = "sparsity"
    unit: ClassVar[str] = "Gini index, [0, 1)"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    paper: ClassVar[Paper] = Paper(
        "Chalasani, Chen, Chowdhury, Jha, Wu", "Concise Explanations of Neural Networks using Adversarial Training",
        "ICML", 2020, "arXiv 1810.06583",
    )  # fmt: skip

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the index of each map, (B, M)."""
        sorted_BMn = batch.heatmaps_BMHW.flatten(2).sort(dim=2).values.double()
        n = sorted_BMn.shape[2]
        factors_n = 2 * torch.arange(1, n + 1, device=sorted_BMn.device, dtype=torch.float64) - n - 1
        return _nan_if_degenerate(batch, (sorted_BMn * factors_n).sum(2) / (n * sorted_BMn.sum(2)))


@dataclass(frozen=True, config=STRICT)
class Entropy(ReadsMap):
    """Entropy of the map's energy over the pixels (the complexity of Bhatt et al.).

    entropy = - sum_i p_i log p_i,   p_i = E_i / sum E

    E_i is the value of E at pixel i of n. In [0, log n], natural logarithm; lower is more concentrated. NaN for a
    degenerate map.
    """

    name: ClassVar[str] = "entropy"
    unit: ClassVar[str] = "nats, [0, log n]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    paper: ClassVar[Paper] = Paper(
        "Bhatt, Weller, Moura", "Evaluating and Aggregating Feature-based Model Explanations",
        "IJCAI", 2020, "arXiv 2005.00631",
    )  # fmt: skip

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the entropy of each map, (B, M)."""
        flat_BMn = batch.heatmaps_BMHW.flatten(2).double()
        share_BMn = flat_BMn / flat_BMn.sum(2, keepdim=True)
        return _nan_if_degenerate(batch, -torch.special.xlogy(share_BMn, share_BMn).sum(2))


@dataclass(frozen=True, config=STRICT)
class EnergyOutsideCentre(ReadsMap):
    """Share of the map's energy that lies outside the central region of the image.

    energy_outside_centre = 1 - sum_{centre} E / sum E

    The centre spans the middle fraction `side` of the image's height and width. In [0, 1]; a uniform map gives the
    share of the image outside the centre. NaN for a degenerate map. Defined by this project as a cheap indicator of
    maps that concentrate at the borders.

    Parameters:
        side: side of the central region, as a fraction of each side of the image.
    """

    side: Annotated[float, Field(gt=0, lt=1)] = 0.5

    name: ClassVar[str] = "energy_outside_centre"
    unit: ClassVar[str] = "share of the energy, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    paper: ClassVar[Paper] = Paper("camatlas", "defined here", "this project", 2026, "no publication")

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the share of each map, (B, M)."""
        maps_BMHW = batch.heatmaps_BMHW.double()
        rows, columns = (slice(edge, length - edge) for length in batch.size for edge in [self._edge(length)])
        return _nan_if_degenerate(batch, 1 - maps_BMHW[..., rows, columns].sum((2, 3)) / maps_BMHW.sum((2, 3)))

    def _edge(self, length: int) -> int:
        """Return the number of pixels outside the centre at each end."""
        return min(round(length * (1 - self.side) / 2), (length - 1) // 2)


@dataclass(frozen=True, config=STRICT)
class TotalVariation(ReadsMap):
    """Roughness of the map: absolute differences of neighbouring pixels, per pixel.

    total_variation = ( sum |E_i+1,j - E_ij| + sum |E_i,j+1 - E_ij| ) / (H W)

    The total variation of Rudin, Osher and Fatemi, in its anisotropic form, per pixel of the H x W image. In [0, 2];
    lower is smoother; 0 for a degenerate map.
    """

    name: ClassVar[str] = "total_variation"
    unit: ClassVar[str] = "per pixel, [0, 2]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "neither"
    paper: ClassVar[Paper] = Paper(
        "Rudin, Osher, Fatemi", "Nonlinear total variation based noise removal algorithms",
        "Physica D", 1992, "doi 10.1016/0167-2789(92)90242-F",
    )  # fmt: skip

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the total variation of each map, (B, M)."""
        maps_BMHW = batch.heatmaps_BMHW.double()
        steps_BM = maps_BMHW.diff(dim=2).abs().sum((2, 3)) + maps_BMHW.diff(dim=3).abs().sum((2, 3))
        return (steps_BM / (batch.size[0] * batch.size[1])).float()


def _nan_if_degenerate(batch: ScoringBatch, values_BM: Tensor) -> Tensor:
    """Convert to float32, with NaN for degenerate maps."""
    return values_BM.float().masked_fill(batch.degenerate_BM, torch.nan)
