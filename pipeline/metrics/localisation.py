"""Metrics of localisation: agreement of the map with boxes or masks of the explained class, without a forward pass.

Legend: B rows, M maps, (H, W) pixels. E heat map in [0, 1], G the pixels of the object: of its mask, or inside a box.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from pipeline.cams.base import STRICT, Paper
from pipeline.cams.multiscale import Sise
from pipeline.cams.score import ScoreCam
from pipeline.metrics.base import ReadsMap
from pipeline.metrics.scoring import ScoringBatch
from pipeline.metrics.views import share_of
from pipeline.model.transfers import sent


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
    """Tell for each pixel, by its index in raster order, whether a marked one is nearer than `tolerance`, (B, M).

    A disc around the pixel has one span in each of its R rows. Sums along rows give the marked pixels in a span.
    """
    height, width = inside_BHW.shape[1:]
    reach = min(max(tolerance, 1), height + width)
    shifts = range(1 - min(reach, height), min(reach, height))
    spans_2R = torch.tensor([shifts, [math.isqrt(reach**2 - 1 - shift**2) for shift in shifts]])
    shifts_R, halves_R = sent(spans_2R, inside_BHW.device)
    rows_BMR = (places_BM // width)[..., None] + shifts_R
    columns_BM1 = (places_BM % width)[..., None]
    sums_BS = functional.pad(inside_BHW.cumsum(2, dtype=torch.int32), (1, 0)).flatten(1)
    starts_BMR = rows_BMR.clamp(0, height - 1) * (width + 1)
    first_BMR = starts_BMR + (columns_BM1 - halves_R).clamp_min(0)
    stop_BMR = starts_BMR + (columns_BM1 + halves_R + 1).clamp_max(width)
    marked_BMR = (sums_BS.gather(1, stop_BMR.flatten(1)) - sums_BS.gather(1, first_BMR.flatten(1))).view_as(rows_BMR)
    return ((marked_BMR > 0) & (rows_BMR >= 0) & (rows_BMR < height)).any(2)
