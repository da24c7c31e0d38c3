"""Metrics of parts: agreement of the map with the value of each part of the image for the explained class.

A value is, for example, the exact Shapley value of the part of a drawn scene. Parts are dilated, because maps are
coarser than the borders of parts.

Legend: B rows, M maps, P parts, R = P + 1 regions, N pixels of a map. E heat map in [0, 1], v_i the value of part i,
D_i its dilated region, D_0 the background: the pixels of no dilated part.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from pipeline.cams.base import STRICT, Paper
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.ranks import spearman
from pipeline.metrics.scoring import ScoringBatch

OURS = Paper("camatlas", "defined here", "this project", 2026, "no publication")
Pixels = Annotated[int, Field(ge=0)]
Reading = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function of one row's maps (M, R) summed over regions, the pixels of these (R,), and values (P,): a value per map."""


@dataclass(frozen=True, config=STRICT)
class PartMass(ReadsMap):
    """How far the map's energy is shared out among the parts as their positive values are.

    mass = sum_i min( m_i, q_i ),   m_i = sum_{D_i} E / sum E,   q_i = max(v_i, 0) / sum_j max(v_j, 0)

    E is the heat map, v_i the value of part i, and D_i the part with the pixels near it. Energy on the background, on
    parts of negative value, and beyond the share of a part is lost. In [0, 1], higher is better. 0 for a degenerate
    map. NaN without parts, if the row explains another class than their values do, if no value is positive, and if a
    part lies outside of the crop.

    Parameters:
        dilation: reach of the parts in pixels of the model's input; a pixel in reach of several parts belongs to the
            nearest, and to the first of equally near ones.
    """

    dilation: Pixels = 4

    name: ClassVar[str] = "mass"
    unit: ClassVar[str] = "share of the energy, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = OURS

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the shared mass of each row and map, (B, M)."""
        return _per_row(batch, batch.heatmaps_BMHW, self.dilation, _shared_mass)


@dataclass(frozen=True, config=STRICT)
class PartRank(ReadsMap):
    """Rank correlation of the map with the values of the parts (Spearman's rho).

    rank = rho( (mean_{D_0} E, ..., mean_{D_P} E), (0, v_1, ..., v_P) )

    E is the heat map, v_i the value of part i, D_i the part with the pixels near it, and D_0 all other pixels. This
    background counts as one more part, whose value is 0. Equal numbers have the mean of their ranks; means are compared
    as float32. In [-1, 1], higher is better; the scale of the map makes no difference. 0 if all means are equal, as for
    a degenerate map. NaN without parts, if the row explains another class than their values do, if all values are 0, if
    a part lies outside of the crop, and if the dilated parts leave no background.

    Parameters:
        dilation: reach of the parts in pixels of the model's input, as for mass.
    """

    dilation: Pixels = 4

    name: ClassVar[str] = "rank"
    unit: ClassVar[str] = "rank correlation, [-1, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = OURS

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the correlation of each row and map, (B, M)."""
        return _per_row(batch, batch.heatmaps_BMHW, self.dilation, _correlation)


@dataclass(frozen=True, config=STRICT)
class PartSign(ReadsMap):
    """Share of the parts with a large value on which a signed map has the sign of the value.

    sign = | { i in L : sign( mean_{D_i} S ) = sign( v_i ) } | / |L|,   L = { i : |v_i| > threshold max_j |v_j| }

    S is the raw map, upsampled bilinearly and not normalised, v_i the value of part i, and D_i the part with the pixels
    near it. In [0, 1], higher is better. NaN for a map without any negative value, which says nothing of signs; without
    parts; if the row explains another class than their values do; if all values are 0; and if a part lies outside of
    the crop.

    Parameters:
        dilation: reach of the parts in pixels of the model's input, as for mass.
        threshold: parts of a smaller share of the largest absolute value are left out.
    """

    dilation: Pixels = 4
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05

    name: ClassVar[str] = "sign"
    unit: ClassVar[str] = "share of the parts, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = OURS

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the share of each row and map, (B, M)."""
        values_BM = _per_row(batch, batch.raw_BMHW, self.dilation, self._agreement)
        return values_BM.masked_fill(~(batch.raw_BMHW < 0).flatten(2).any(2), torch.nan)

    def _agreement(self, sums_MR: Tensor, pixels_R: Tensor, values_P: Tensor) -> Tensor:
        large_P = values_P.abs() > self.threshold * values_P.abs().max()
        agrees_MP = (sums_MR / pixels_R)[:, 1:].sign() == values_P.sign()
        return agrees_MP[:, large_P].double().mean(1)


def _per_row(batch: ScoringBatch, maps_BMHW: Tensor, dilation: int, reading: Reading) -> Tensor:
    """Read the sums of each row's maps over its regions, (B, M); NaN for rows without parts."""
    values_BM = maps_BMHW.new_full(maps_BMHW.shape[:2], torch.nan, dtype=torch.float32)
    for row, (parts, region_HW) in enumerate(zip(batch.parts_B, batch.regions(dilation), strict=True)):
        if parts is None or region_HW is None:
            continue
        values_P = parts.values_P.to(maps_BMHW.device)
        in_region_NR = functional.one_hot(region_HW.flatten(), len(values_P) + 1).double()
        sums_MR = maps_BMHW[row].flatten(1).double() @ in_region_NR
        values_BM[row] = reading(sums_MR, in_region_NR.sum(0), values_P).float()
    return values_BM


def _shared_mass(sums_MR: Tensor, _pixels_R: Tensor, values_P: Tensor) -> Tensor:
    positive_P = values_P.clamp_min(0)
    shares_P = positive_P / positive_P.max()  # first, so that the sum is finite; NaN if no value is positive
    total_M1 = sums_MR.sum(1, keepdim=True)
    masses_MP = torch.where(total_M1 > 0, sums_MR[:, 1:] / total_M1.clamp_min(1e-300), 0.0)
    return torch.minimum(masses_MP, shares_P / shares_P.sum()).sum(1)


def _correlation(sums_MR: Tensor, pixels_R: Tensor, values_P: Tensor) -> Tensor:
    means_MR, values_R = (sums_MR / pixels_R).float(), functional.pad(values_P, (1, 0))
    rho_M = spearman(means_MR, values_R)
    applies = bool((values_R != values_R[0]).any() and pixels_R[0] > 0)
    return rho_M if applies else torch.full_like(rho_M, torch.nan)
