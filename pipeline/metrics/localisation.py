"""Metrics of localisation: agreement of the map with boxes or masks of the explained class, without a forward pass.

Legend: B rows, M maps, (H, W) pixels. E heat map in [0, 1], G the pixels of the object: of its mask, or inside a box.
"""

from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Paper
from pipeline.cams.multiscale import Sise
from pipeline.cams.score import ScoreCam
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import share_of
from pipeline.model.transfers import sent

_AT_ONCE = 1 << 21
"""Most pixels of discs that are looked at together."""


@dataclass(frozen=True, config=STRICT)
class PointingGame(ReadsMap):
    """Whether the maximum of the map lies on the object, or near it.

    hit = 1 if some pixel of G is nearer than `tolerance` pixels to argmax E, else 0

    With tolerance 0, the maximum must lie in G itself. Of tied maxima, the first in raster order counts. 0 for a
    degenerate map, NaN without a box. 0 or 1, higher is better.

    Parameters:
        tolerance: in pixels of the model's input; 15 is the value of the paper and of TorchRay (distance < 15).
    """

    tolerance: Annotated[int, Field(ge=0)] = 15

    name: ClassVar[str] = "pointing_game"
    unit: ClassVar[str] = "0 or 1"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = Paper(
        "Zhang, Bargal, Lin, Brandt, Shen, Sclaroff", "Top-down Neural Attention by Excitation Backprop",
        "IJCV", 2018, "arXiv 1608.00507",
    )  # fmt: skip

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute for each row and map, (B, M), whether it is a hit."""
        flat_BMP = batch.heatmaps_BMHW.flatten(2)
        hit_BM = _is_near(batch.inside_BHW, flat_BMP.argmax(2), self.tolerance) & (flat_BMP.amax(2) > 0)
        return _where_boxed(hit_BM.float(), batch.inside_BHW)


@dataclass(frozen=True, config=STRICT)
class EnergyInBox(ReadsMap):
    """Share of the map's energy that lies on the object (energy-based pointing game).

    energy = sum_{G} E / sum E

    In [0, 1], higher is better; a uniform map gives the share of the image that G covers. 0 for a degenerate map, NaN
    without a box.
    """

    name: ClassVar[str] = "energy_in_box"
    unit: ClassVar[str] = "share of the energy, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = ScoreCam.paper

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the share of each row and map, (B, M)."""
        inside_BHW = batch.inside_BHW
        heatmaps_BMHW = batch.heatmaps_BMHW.double()  # so that sums of many pixels are exact to float32
        total_BM = heatmaps_BMHW.sum((2, 3))
        inside_BM = (heatmaps_BMHW * inside_BHW[:, None]).sum((2, 3))
        share_BM = torch.where(total_BM > 0, inside_BM / total_BM.clamp_min(1e-300), 0.0)
        return _where_boxed(share_BM.float(), inside_BHW)


@dataclass(frozen=True, config=STRICT)
class TopNInBox(ReadsMap):
    """Share of the top N pixels of the map that lie on the object of N pixels (Bbox; relevance rank accuracy).

    top_n_in_box = |top_N(E) intersect G| / N,   N = |G|

    top_N(E) are the N pixels with the largest values; tied pixels rank in raster order. In [0, 1], higher is
    better. 0 for a degenerate map, NaN without a box.
    """

    name: ClassVar[str] = "top_n_in_box"
    unit: ClassVar[str] = "share of the top pixels, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = Paper(
        "Schulz, Sixt, Tombari, Landgraf", "Restricting the Flow: Information Bottlenecks for Attribution",
        "ICLR", 2020, "arXiv 2001.00396",
    )  # fmt: skip

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the share of each row and map, (B, M)."""
        inside_BHW = batch.inside_BHW
        size_B111 = inside_BHW.sum((1, 2)).view(-1, 1, 1, 1)
        hits_BM = ((batch.ranks_BMHW < size_B111) & inside_BHW[:, None]).sum((2, 3))
        share_BM = hits_BM / size_B111[:, :, 0, 0].clamp_min(1)
        return _where_boxed(share_BM.masked_fill(batch.degenerate_BM, 0.0), inside_BHW)


@dataclass(frozen=True, config=STRICT)
class MiouTop20(ReadsMap):
    """Intersection over union of the object and the top 20 % of the map's pixels.

    miou_top20 = |T intersect G| / |T union G|,   T the round(share n) pixels with the largest E

    n is the number of pixels; tied pixels rank in raster order. In [0, 1], higher is better. 0 for a degenerate map,
    NaN without a box. The mean over images is the mIoU of SISE.

    Parameters:
        share: size of T as a fraction of the image's pixels; 20 % as in SISE.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.2

    name: ClassVar[str] = "miou_top20"
    unit: ClassVar[str] = "intersection over union, [0, 1]"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    paper: ClassVar[Paper] = Sise.paper

    def __call__(self, batch: ScoringBatch) -> Tensor:
        """Compute the overlap of each row and map, (B, M)."""
        inside_BHW = batch.inside_BHW
        top_BMHW = batch.ranks_BMHW < share_of(self.share, batch)
        both_BM = (top_BMHW & inside_BHW[:, None]).sum((2, 3))
        either_BM = (top_BMHW | inside_BHW[:, None]).sum((2, 3))
        overlap_BM = both_BM / either_BM.clamp_min(1)
        return _where_boxed(overlap_BM.masked_fill(batch.degenerate_BM, 0.0), inside_BHW)


def _where_boxed(values_BM: Tensor, inside_BHW: Tensor) -> Tensor:
    boxed_B = inside_BHW.flatten(1).any(1)
    return values_BM.masked_fill(~boxed_B[:, None], torch.nan)


def _is_near(inside_BHW: Tensor, places_BM: Tensor, tolerance: int) -> Tensor:
    """Tell for each pixel, by its index in raster order, whether a marked one is nearer than `tolerance`, (B, M)."""
    height, width = inside_BHW.shape[1:]
    disc_2K = sent(_disc(min(max(tolerance, 1), height + width), height, width), inside_BHW.device)
    found_BM, flat_BP = torch.zeros_like(places_BM, dtype=torch.bool), inside_BHW.flatten(1)
    for down_K, across_K in torch.split(disc_2K, max(1, _AT_ONCE // max(1, places_BM.numel())), 1):
        rows_BMK = (places_BM // width)[..., None] + down_K
        columns_BMK = (places_BM % width)[..., None] + across_K
        exist_BMK = (rows_BMK >= 0) & (rows_BMK < height) & (columns_BMK >= 0) & (columns_BMK < width)
        at_BMK = (rows_BMK * width + columns_BMK).clamp_(0, height * width - 1)
        marked_BMK = flat_BP.gather(1, at_BMK.flatten(1)).view_as(at_BMK)
        found_BM |= (marked_BMK & exist_BMK).any(2)
    return found_BM


@lru_cache(maxsize=4)
def _disc(reach: int, height: int, width: int) -> Tensor:
    """Return the steps down and across to the pixels nearer than `reach`, (2, K); at most those of the image."""
    down, across = (torch.arange(1 - min(reach, side), min(reach, side)) for side in (height, width))
    steps_2K = torch.cartesian_prod(down, across).T
    return steps_2K[:, (steps_2K**2).sum(0) < reach**2]
