"""Methods that mask the image with regions: channel groups, random grids, optimised masks.

Legend: B rows (image, target), G groups, K channels, (u, v) grid, C colours, (H, W) pixels; A activations, g gradient
and S logit and p softmax probability of the target; mm min-max normalisation to [0, 1], Up bilinear upsampling to the
image.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from pipeline.cams.base import STRICT, Cost, Draws, Needs, NetShape, Paper
from pipeline.cams.grids import Grid, pooled
from pipeline.maps.heatmaps import heatmaps, is_degenerate, upsample
from pipeline.model import noise
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskStream
from pipeline.model.probe import Probe
from pipeline.model.transfers import sent

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
class Rise(Draws):
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
        for masks_MHW in self.masks((pixels_BCHW.shape[2], pixels_BCHW.shape[3]), probe.seed, pixels_BCHW.device):
            stream = MaskStream(masks_MHW.expand(images, *masks_MHW.shape))
            confidences_BM = probe.scorer.scores_of_rows(evidence, stream).confidences_BMS[..., 0]
            total_BHW = total_BHW + (confidences_BM[:, :, None, None] * masks_MHW).sum(1)
        return pooled(total_BHW / (self.num_masks * self.keep), self.grid)

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Count one masked forward pass per mask."""
        return Cost(forwards=self.num_masks)

    def masks(self, size: tuple[int, int], seed: int, device: torch.device) -> Iterator[Tensor]:
        """Yield the run's masks in batches, (M, H, W) in [0, 1]."""
        random = noise.Stream(seed, "", self.name)
        height, width = (math.ceil(length / self.cells) for length in size)
        for start in range(0, self.num_masks, _MASKS_AT_ONCE):
            count = min(_MASKS_AT_ONCE, self.num_masks - start)
            cells_M1cc = (random.uniform(count, 1, self.cells, self.cells) < self.keep).float()
            large_M1hw = upsample(sent(cells_M1cc, device), ((self.cells + 1) * height, (self.cells + 1) * width))
            corners = [(random.below(height), random.below(width)) for _ in range(count)]
            yield torch.stack(
                [large_M1hw[m, 0, top : top + size[0], left : left + size[1]] for m, (top, left) in enumerate(corners)]
            )


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
