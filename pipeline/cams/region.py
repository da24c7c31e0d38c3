"""Methods that show the model regions which neither single channels nor a path make: groups, small images, grids,
an optimised mask.

Legend: B rows (image, target), G groups, K channels, (u, v) grid, C colours, (H, W) pixels; A activations, g gradient
and S logit and p softmax probability of the target; mm min-max to [0, 1], Up bilinear enlargement to the image.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from pipeline.cams.base import STRICT, Cost, Needs, NetShape, Paper, weighted_sum
from pipeline.cams.pixels import Grid, pooled
from pipeline.cams.representatives import fewest, grouped_masks, strongest
from pipeline.maps.heatmaps import heatmaps, is_degenerate, min_max, upsample
from pipeline.model import noise
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe

Side = Annotated[int, Field(ge=1)]
_MASKS_AT_ONCE = 64


@dataclass(frozen=True, config=STRICT)
class GroupCam:
    """Group-CAM: Grad-CAM's channels in groups, each weighed by the confidence that its region brings back.

    M = sum_g s_g mm(Up(R_g)),   R_g = ReLU( sum_{k in g} w_k A_k ),   w_k = mean_ij g^k_ij
    s_g = ReLU( p(x * m_g + b * (1 - m_g)) - p(b) ),   m_g = mm(Up(R_g)),   b = blurred x (51 px, sigma 50)

    Groups are consecutive channels. Taken at grid resolution: min and max are those of Up(R_g). Groups whose R_g is
    constant are skipped.

    Parameters:
        groups: number G of groups, of ceil(K / G) channels each; fewer where that takes fewer.
    """

    groups: Annotated[int, Field(ge=1)] = 32

    name: ClassVar[str] = "group_cam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Zhang, Rao, Yang", "Group-CAM: Group Score-Weighted Visual Explanations for Deep Convolutional Networks",
        "arXiv", 2021, "arXiv 2103.13859",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        weighted_BKuv = evidence.grads_BKuv.mean((2, 3), keepdim=True) * evidence.acts_BKuv
        regions_BGuv = torch.stack([chunk.sum(1).relu() for chunk in weighted_BKuv.chunk(self.groups, 1)], 1)
        nothing_B1uv = torch.zeros_like(regions_BGuv[:, :1])  # shows the blurred image alone
        keep_BM = torch.cat([~is_degenerate(regions_BGuv), is_degenerate(nothing_B1uv)], 1)
        masks = MaskStream(
            torch.cat([regions_BGuv, nothing_B1uv], 1), MaskLook("upsample_first", fill="blur"), keep_IM=keep_BM
        )
        scores = probe.scorer.scores(evidence.pixels_BCHW, masks, evidence.targets_B).confidences_BMS[..., 0]
        gains_BG = (scores[:, :-1] - scores[:, -1:]).relu().nan_to_num(0.0)
        large_BGHW = upsample(regions_BGuv, (evidence.pixels_BCHW.shape[2], evidence.pixels_BCHW.shape[3]))
        low_BG11 = large_BGHW.amin((2, 3), keepdim=True)
        span_BG11 = large_BGHW.amax((2, 3), keepdim=True) - low_BG11
        scaled_BGuv = (regions_BGuv - low_BG11) / torch.where(span_BG11 > 0, span_BG11, 1.0)
        return (gains_BG[:, :, None, None] * scaled_BGuv).sum(1)

    def cost(self, net: NetShape) -> Cost:
        """One masked forward per group that is not constant, and one for the blurred image."""
        size = math.ceil(net.target.channels / self.groups)
        return Cost(forwards=math.ceil(net.target.channels / size) + 1)


@dataclass(frozen=True, config=STRICT)
class IncrementCam:
    """Increment-CAM (interpretation): Grad-CAM, joined by a Score-CAM over its weighted channels on a small image.

    phase 1   G_k = w_k A_k,   w_k = mean_ij g^k_ij,   L1 = ReLU( sum_k G_k )
    phase 2   X = image averaged down to the grid,   H_k = mm(ReLU(G_k)),   s_k = p(R(X * H_k))
              b = softmax_k(s_k),   L2 = ReLU( sum_k b_k G_k )
    phase 3   M = mm(L1) + lam mm(L2)                            (merge = maps)
              M = ReLU( sum_k (w_k / sum |w| + lam b_k) A_k )     (merge = weights)

    The abstract gives the three phases, the small image and the weighted sum; everything else here is this project's
    reading: masks per channel, R enlarging the masked small image to the network's input (most networks cannot take
    7 x 7 pixels), the softmax, and scaling each map before they are added, without which L2 would vanish beside L1.
    The score of the empty image cancels in the softmax and is not asked for. Channels with constant ReLU(G_k) are
    skipped; without any channel left, L2 and b are 0. With lam = 0 this is Grad-CAM after mm.

    Parameters:
        lam: weight of phase 2.
        merge: maps or weights.
        phase2_size: what R enlarges to: input, grid (no enlarging), or (height, width).
        clusters: ask in phase 2 about so many groups of channels instead of each (approximate, as in Score-CAM).
        channels: ask in phase 2 about so many channels, those with the largest |sum_ij g_ij A_ij| (approximate).
    """

    lam: Annotated[float, Field(ge=0)] = 1.0
    merge: Literal["maps", "weights"] = "maps"
    phase2_size: Literal["input", "grid"] | Annotated[tuple[Side, Side], Field(strict=False)] = "input"
    clusters: Annotated[int, Field(ge=1)] | None = None
    channels: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "increment_cam"
    needs: ClassVar[Needs] = Needs(gradients=True)
    interpretation: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Niaz, Soomro, Zia, Choi",
        "Increment-CAM: Incrementally-Weighted Class Activation Maps for Better Visual Explanations",
        "IEEE Access", 2024, "doi 10.1109/ACCESS.2024.3413859",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        weights_BK = evidence.grads_BKuv.mean((2, 3))
        boosts_BK = self._boosts(evidence, probe, weights_BK)
        if self.merge == "weights":
            shares_BK = weights_BK / weights_BK.abs().sum(1, keepdim=True).clamp_min(1e-30)
            return weighted_sum(shares_BK + self.lam * boosts_BK, evidence.acts_BKuv)
        first_Buv = weighted_sum(weights_BK, evidence.acts_BKuv)
        second_Buv = weighted_sum(boosts_BK * weights_BK, evidence.acts_BKuv)
        return min_max(first_Buv) + self.lam * min_max(second_Buv)

    def cost(self, net: NetShape) -> Cost:
        """One masked forward per channel that is not constant after weighting and rectifying, or per cluster."""
        return Cost(forwards=fewest(net, self.clusters, self.channels))

    def _boosts(self, evidence: Evidence, probe: Probe, weights_BK: Tensor) -> Tensor:
        """Phase 2's weights b, (B, K); 0 for channels that are skipped."""
        positive_BKuv = (weights_BK[:, :, None, None] * evidence.acts_BKuv).relu()
        keep_BK = ~is_degenerate(positive_BKuv) & strongest(evidence, self.channels)
        height, width = evidence.acts_BKuv.shape[2:]
        small_BCuv = functional.adaptive_avg_pool2d(evidence.pixels_BCHW, (height, width))
        masks = MaskStream(min_max(positive_BKuv), MaskLook(resize=self._size(evidence)), keep_IM=keep_BK)
        grouped = grouped_masks(masks, self.clusters)
        scores = grouped.of_channels(probe.scorer.scores(small_BCuv, grouped.masks, evidence.targets_B))
        scores_BK = scores.confidences_BMS[..., 0]
        boosts_BK = scores_BK.masked_fill(~keep_BK, -torch.inf).softmax(1)
        return boosts_BK.masked_fill(~keep_BK, 0.0)

    def _size(self, evidence: Evidence) -> tuple[int, int] | None:
        if self.phase2_size == "grid":
            return None
        height, width = evidence.pixels_BCHW.shape[2:]
        return (height, width) if self.phase2_size == "input" else self.phase2_size


@dataclass(frozen=True, config=STRICT)
class Rise:
    """RISE: the mean of random masks, each weighed by the confidence under it.

    M = 1 / (N p) sum_n p(x * m_n) m_n

    m_n is a grid of `cells` x `cells` switches, each on with probability p, enlarged bilinearly to (cells + 1) / cells
    of the image and cropped at a random place. The masks come from the run's seed and are the same for all images.
    Stored at a grid of its own; each cell holds the mean over its pixels.

    Parameters:
        num_masks: N.
        cells: switches along each side of the image.
        keep: p.
        grid: cells along each side of the stored map.
    """

    num_masks: Annotated[int, Field(ge=1)] = 4000
    cells: Annotated[int, Field(ge=1)] = 7
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    grid: Grid = 56

    name: ClassVar[str] = "rise"
    needs: ClassVar[Needs] = Needs(activations=False)
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "authors_pytorch": {"num_masks": 6000, "cells": 8, "keep": 0.1},
        "authors_keras": {"num_masks": 2000, "cells": 8, "keep": 0.5},
    }
    paper: ClassVar[Paper] = Paper(
        "Petsiuk, Das, Saenko", "RISE: Randomized Input Sampling for Explanation of Black-box Models",
        "BMVC", 2018, "arXiv 1806.07421",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v), >= 0."""
        pixels_BCHW = evidence.pixels_BCHW
        total_BHW = torch.zeros_like(pixels_BCHW[:, 0])
        images = len(evidence.first_rows())
        for masks_MHW in self.masks((pixels_BCHW.shape[2], pixels_BCHW.shape[3]), probe.seed):
            masks_MHW = masks_MHW.to(pixels_BCHW)  # noqa: PLW2901 - the same masks where the model is
            stream = MaskStream(masks_MHW.expand(images, *masks_MHW.shape))
            scores_BM = probe.scorer.scores_of_rows(evidence, stream).confidences_BMS[..., 0]
            total_BHW = total_BHW + (scores_BM[:, :, None, None] * masks_MHW).sum(1)
        return pooled(total_BHW / (self.num_masks * self.keep), self.grid)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """One masked forward per mask."""
        return Cost(forwards=self.num_masks)

    def masks(self, size: tuple[int, int], seed: int) -> Iterator[Tensor]:
        """The run's masks, some at a time, (M, H, W) in [0, 1]."""
        random = noise.generator(seed, "", self.name)
        for start in range(0, self.num_masks, _MASKS_AT_ONCE):
            count = min(_MASKS_AT_ONCE, self.num_masks - start)
            yield torch.stack([self._mask(size, random) for _ in range(count)])

    def _mask(self, size: tuple[int, int], random: torch.Generator) -> Tensor:
        switches = (torch.rand(1, 1, self.cells, self.cells, generator=random) < self.keep).float()
        height, width = (math.ceil(length / self.cells) for length in size)
        large = upsample(switches, ((self.cells + 1) * height, (self.cells + 1) * width))[0, 0]
        top, left = (int(torch.randint(length, (1,), generator=random)) for length in (height, width))
        return large[top : top + size[0], left : left + size[1]]


@dataclass(frozen=True, config=STRICT)
class OptiCam:
    """Opti-CAM: the weights of the channels that make the masked image score highest.

    M = sum_k softmax(u)_k A_k,   u = argmax S( x * mm(Up(M)) )

    u starts at 0 and climbs by Adam; the gradient goes through the whole model, the mask and mm. Signed where
    activations are. Adam's steps have the size of the rate however small the gradient is, so rounding is magnified.

    Parameters:
        iterations: steps of Adam.
        rate: its learning rate.
    """

    iterations: Annotated[int, Field(ge=1)] = 100
    rate: Annotated[float, Field(gt=0)] = 0.1

    name: ClassVar[str] = "opti_cam"
    needs: ClassVar[Needs] = Needs()
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    paper: ClassVar[Paper] = Paper(
        "Zhang, Torres, Sicre, Avrithis, Ayache", "Opti-CAM: Optimizing saliency maps for interpretability",
        "Computer Vision and Image Understanding", 2024, "arXiv 2301.07002",
    )  # fmt: skip

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v)."""
        pixels_BCHW, acts_BKuv = evidence.pixels_BCHW, evidence.acts_BKuv
        size = (pixels_BCHW.shape[2], pixels_BCHW.shape[3])
        with torch.enable_grad():
            logits_BK = torch.zeros_like(acts_BKuv[:, :, 0, 0], requires_grad=True)
            climber = torch.optim.Adam([logits_BK], lr=self.rate, maximize=True)
            for _ in range(self.iterations):
                masked_BCHW = pixels_BCHW * heatmaps(_mixed(logits_BK, acts_BKuv)[:, None], size)
                slope_BCHW, _ = probe.backward(masked_BCHW.detach(), evidence.targets_B)
                (logits_BK.grad,) = torch.autograd.grad((masked_BCHW * slope_BCHW).sum(), logits_BK)
                climber.step()
        return _mixed(logits_BK.detach(), acts_BKuv)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """One forward and whole backward per step."""
        return Cost(forwards=self.iterations, backwards=self.iterations)


def _mixed(logits_BK: Tensor, acts_BKuv: Tensor) -> Tensor:
    return (logits_BK.softmax(1)[:, :, None, None] * acts_BKuv).sum(1)
