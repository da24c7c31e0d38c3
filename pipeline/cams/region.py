"""Methods that mask the image with regions: channel groups, channels on a small image, random grids, optimised masks.

Legend: B rows (image, target), G groups, K channels, (u, v) grid, C colours, (H, W) pixels; A activations, g gradient
and S logit and p softmax probability of the target; mm min-max normalisation to [0, 1], Up bilinear upsampling to the
image.
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
from pipeline.cams.grids import Grid, pooled
from pipeline.cams.representatives import grouped_masks, masks_per_image, strongest
from pipeline.maps.heatmaps import heatmaps, is_degenerate, min_max, upsample
from pipeline.model import noise
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe

Side = Annotated[int, Field(ge=1)]
_MASKS_AT_ONCE = 64


@dataclass(frozen=True, config=STRICT)
class GroupCam:
    """Group-CAM: Grad-CAM over groups of channels, each weighted by the confidence that its region restores.

    M = sum_g s_g mm(Up(R_g)),   R_g = ReLU( sum_{k in g} w_k A_k ),   w_k = mean_ij g^k_ij
    s_g = ReLU( p(x * m_g + b * (1 - m_g)) - p(b) ),   m_g = mm(Up(R_g)),   b = blurred x (51 px, sigma 50)

    A_k is the activation map of channel k, g^k its gradient of the target logit, p the target's softmax probability on
    the image x. Up is bilinear upsampling to the image, mm min-max normalisation to [0, 1]. Groups are consecutive
    channels. The sum is computed at grid resolution, with the minimum and maximum of Up(R_g). Groups with a constant
    R_g are skipped.

    Parameters:
        groups: number G of groups, of ceil(K / G) channels each; fewer if those already hold all channels.
    """

    groups: Annotated[int, Field(ge=1)] = 32

    name: ClassVar[str] = "group_cam"
    needs: ClassVar[Needs] = Needs(gradients=True, confidences=True)
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
        empty_B1uv = torch.zeros_like(regions_BGuv[:, :1])  # a mask that leaves only the blurred image
        keep_BG = torch.cat([~is_degenerate(regions_BGuv), is_degenerate(empty_B1uv)], 1)
        masks = MaskStream(
            torch.cat([regions_BGuv, empty_B1uv], 1), MaskLook("upsample_first", fill="blur"), keep_IM=keep_BG
        )
        confidences_BG = probe.scorer.scores(evidence.pixels_BCHW, masks, evidence.targets_B).confidences_BMS[..., 0]
        gains_BG = (confidences_BG[:, :-1] - confidences_BG[:, -1:]).relu().nan_to_num(0.0)
        large_BGHW = upsample(regions_BGuv, (evidence.pixels_BCHW.shape[2], evidence.pixels_BCHW.shape[3]))
        low_BG11 = large_BGHW.amin((2, 3), keepdim=True)
        span_BG11 = large_BGHW.amax((2, 3), keepdim=True) - low_BG11
        scaled_BGuv = (regions_BGuv - low_BG11) / torch.where(span_BG11 > 0, span_BG11, 1.0)
        return (gains_BG[:, :, None, None] * scaled_BGuv).sum(1)

    def cost(self, net: NetShape) -> Cost:
        """Count one masked forward pass per group and one for the blurred image; constant groups need none."""
        size = math.ceil(net.target.channels / self.groups)
        return Cost(forwards=math.ceil(net.target.channels / size) + 1)


@dataclass(frozen=True, config=STRICT)
class IncrementCam:
    """Increment-CAM (interpretation): Grad-CAM plus a Score-CAM of its weighted channels on a downsampled image.

    phase 1   G_k = w_k A_k,   w_k = mean_ij g^k_ij,   L1 = ReLU( sum_k G_k )
    phase 2   X = image averaged down to the grid,   H_k = mm(ReLU(G_k)),   s_k = p(R(X * H_k))
              b = softmax_k(s_k),   L2 = ReLU( sum_k b_k G_k )
    phase 3   M = mm(L1) + lam mm(L2)                            (merge = maps)
              M = ReLU( sum_k (w_k / sum |w| + lam b_k) A_k )     (merge = weights)

    A_k is the activation map of channel k, g^k its gradient of the target logit, p the target's softmax probability, mm
    min-max normalisation to [0, 1], R bilinear upsampling to `phase2_size`.

    The abstract gives the three phases, the small image and the weighted sum. The rest is this project's reading: one
    mask per channel, upsampling the masked small image to the network's input (most networks cannot process 7 x 7
    pixels), the softmax, and scaling both maps before they are added, without which L2 would be negligible next to L1.
    The confidence of the empty image cancels in the softmax and is not computed. Channels with constant ReLU(G_k) are
    skipped; if no channel is left, L2 and b are 0. With lam = 0 this is Grad-CAM after mm.

    Parameters:
        lam: weight of phase 2.
        merge: what phase 3 adds, maps or weights.
        phase2_size: output size of R: input, grid (no upsampling), or (height, width).
        clusters: in phase 2, score this many groups of channels instead of each channel (approximate, as in Score-CAM).
        channels: in phase 2, score only this many channels, those with the largest |sum_ij g_ij A_ij| (approximate).
    """

    lam: Annotated[float, Field(ge=0)] = 1.0
    merge: Literal["maps", "weights"] = "maps"
    phase2_size: Literal["input", "grid"] | Annotated[tuple[Side, Side], Field(strict=False)] = "input"
    clusters: Annotated[int, Field(ge=1)] | None = None
    channels: Annotated[int, Field(ge=1)] | None = None

    name: ClassVar[str] = "increment_cam"
    needs: ClassVar[Needs] = Needs(gradients=True, confidences=True)
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
        """Count one masked forward pass per channel or cluster; channels with constant ReLU(G_k) need none."""
        return Cost(forwards=masks_per_image(net, self.clusters, self.channels))

    def _boosts(self, evidence: Evidence, probe: Probe, weights_BK: Tensor) -> Tensor:
        """Compute the weights b of phase 2, (B, K); 0 for channels that are skipped."""
        positive_BKuv = (weights_BK[:, :, None, None] * evidence.acts_BKuv).relu()
        keep_BK = ~is_degenerate(positive_BKuv) & strongest(evidence, self.channels)
        height, width = evidence.acts_BKuv.shape[2:]
        small_BCuv = functional.adaptive_avg_pool2d(evidence.pixels_BCHW, (height, width))
        masks = MaskStream(min_max(positive_BKuv), MaskLook(resize=self._size(evidence)), keep_IM=keep_BK)
        grouped = grouped_masks(masks, self.clusters)
        scores = grouped.of_channels(probe.scorer.scores(small_BCuv, grouped.masks, evidence.targets_B))
        confidences_BK = scores.confidences_BMS[..., 0]
        boosts_BK = confidences_BK.masked_fill(~keep_BK, -torch.inf).softmax(1)
        return boosts_BK.masked_fill(~keep_BK, 0.0)

    def _size(self, evidence: Evidence) -> tuple[int, int] | None:
        if self.phase2_size == "grid":
            return None
        height, width = evidence.pixels_BCHW.shape[2:]
        return (height, width) if self.phase2_size == "input" else self.phase2_size


@dataclass(frozen=True, config=STRICT)
class Rise:
    """RISE: the mean of random masks, each weighted by the target's confidence on the masked image.

    M = 1 / (N q) sum_n p(x * m_n) m_n

    p is the target's softmax probability on the image x. m_n is a random grid of `cells` x `cells` zeros and ones, each
    1 with probability q, upsampled bilinearly to (cells + 1) / cells of the image's size and cropped at a random
    position. The masks are drawn from the run's seed and are the same for all images. Each cell of the stored map holds
    the mean over its pixels.

    Parameters:
        num_masks: N.
        cells: cells of the random grid along each side of the image.
        keep: q.
        grid: cells along each side of the stored map.
    """

    num_masks: Annotated[int, Field(ge=1)] = 4000
    cells: Annotated[int, Field(ge=1)] = 7
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    grid: Grid = 56

    name: ClassVar[str] = "rise"
    needs: ClassVar[Needs] = Needs(activations=False, confidences=True)
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
            masks_MHW = masks_MHW.to(pixels_BCHW)  # noqa: PLW2901 - moved to the model's device
            stream = MaskStream(masks_MHW.expand(images, *masks_MHW.shape))
            confidences_BM = probe.scorer.scores_of_rows(evidence, stream).confidences_BMS[..., 0]
            total_BHW = total_BHW + (confidences_BM[:, :, None, None] * masks_MHW).sum(1)
        return pooled(total_BHW / (self.num_masks * self.keep), self.grid)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one masked forward pass per mask."""
        return Cost(forwards=self.num_masks)

    def masks(self, size: tuple[int, int], seed: int) -> Iterator[Tensor]:
        """Yield the run's masks in batches, (M, H, W) in [0, 1]."""
        random = noise.generator(seed, "", self.name)
        for start in range(0, self.num_masks, _MASKS_AT_ONCE):
            count = min(_MASKS_AT_ONCE, self.num_masks - start)
            yield torch.stack([self._mask(size, random) for _ in range(count)])

    def _mask(self, size: tuple[int, int], random: torch.Generator) -> Tensor:
        cells = (torch.rand(1, 1, self.cells, self.cells, generator=random) < self.keep).float()
        height, width = (math.ceil(length / self.cells) for length in size)
        large = upsample(cells, ((self.cells + 1) * height, (self.cells + 1) * width))[0, 0]
        top, left = (int(torch.randint(length, (1,), generator=random)) for length in (height, width))
        return large[top : top + size[0], left : left + size[1]]


@dataclass(frozen=True, config=STRICT)
class OptiCam:
    """Opti-CAM: channel weights optimised to maximise the target logit of the masked image.

    M = sum_k softmax(u)_k A_k,   u = argmax S( x * mm(Up(M)) )

    A_k is the activation map of channel k, S the target logit on the image x, Up bilinear upsampling to the image, mm
    min-max normalisation to [0, 1]. u starts at 0 and is optimised by Adam, with the gradient through the whole model,
    the mask and mm. The map is signed where activations are. Adam's step size does not shrink with the gradient, so
    rounding errors are amplified.

    Parameters:
        iterations: number of Adam steps.
        rate: learning rate of Adam.
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
            coefficients_BK = torch.zeros_like(acts_BKuv[:, :, 0, 0], requires_grad=True)
            optimizer = torch.optim.Adam([coefficients_BK], lr=self.rate, maximize=True)
            for _ in range(self.iterations):
                masked_BCHW = pixels_BCHW * heatmaps(_combined(coefficients_BK, acts_BKuv)[:, None], size)
                grads_BCHW, _ = probe.backward(masked_BCHW.detach(), evidence.targets_B)
                (coefficients_BK.grad,) = torch.autograd.grad((masked_BCHW * grads_BCHW).sum(), coefficients_BK)
                optimizer.step()
        return _combined(coefficients_BK.detach(), acts_BKuv)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one forward and one full backward pass per step."""
        return Cost(forwards=self.iterations, backwards=self.iterations)


def _combined(coefficients_BK: Tensor, acts_BKuv: Tensor) -> Tensor:
    return (coefficients_BK.softmax(1)[:, :, None, None] * acts_BKuv).sum(1)
