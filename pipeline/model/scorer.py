"""The Scorer: every masked pass of every method and metric goes through here, and is counted.

Masks are described at grid resolution; only the Scorer enlarges them, lays them over the images and batches
them, over the flattened (image, mask, scale) axis. So batches are full whatever the number of channels.

Legend: B images, M masks, S scales, P passes (flattened), C colours, (u, v) grid, (H, W) pixels, N classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.heatmaps import heatmaps, min_max, upsample
from pipeline.model.baselines import Baseline, Normalisation, baseline_pixels
from pipeline.model.batching import Batcher
from pipeline.model.counts import Counts

MaskRule = Literal["upsample_first", "normalise_first", "as_is"]


@dataclass(frozen=True)
class MaskStream:
    """Masks of a batch of images that are never all enlarged at once.

    Attributes:
        grids_BMuv: masks at grid resolution (or at image resolution).
        rule: "upsample_first" enlarges and then scales each mask to [0, 1]; "normalise_first" does it the
            other way round; "as_is" only enlarges. A constant mask scales to all zero.
        scales: every mask is applied once per scale s, as x * (s * mask).
        align_corners: how grid corners meet image corners when enlarging.
        fill: what shows through where the mask is 0; "mean" is zero in normalised space.
        keep_BM: masks that are worth a pass; None keeps all. The others score NaN.
    """

    grids_BMuv: Tensor
    rule: MaskRule = "as_is"
    scales: tuple[float, ...] = (1.0,)
    align_corners: bool = False
    fill: Baseline = "mean"
    keep_BM: Tensor | None = None


@dataclass(frozen=True)
class Scores:
    """What the model said of the explained class, for every image, mask and scale; NaN where not asked."""

    logits_BMS: Tensor
    confidences_BMS: Tensor


class Scorer:
    """Runs masked images through a model, in full batches.

    Args:
        forward: maps normalised images (P, C, H, W) to logits (P, N), float32.
        counts: where the forward passes are counted.
        normalisation: what made the images; fills other than "mean" need it.
        batcher: the largest pass, and how it is filled.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        counts: Counts,
        normalisation: Normalisation,
        batcher: Batcher,
    ) -> None:
        self._forward = forward
        self._counts = counts
        self._normalisation = normalisation
        self.batcher = batcher

    def scores(self, pixels_BCHW: Tensor, masks: MaskStream, targets_B: Tensor) -> Scores:
        """Score the target class of every image under every mask.

        For mask m at scale s the model sees x * (s m) + fill * (1 - s m).

        Args:
            pixels_BCHW: normalised images.
            masks: the masks of each image.
            targets_B: class whose logit and softmax probability are read.
        """
        images_P, masks_P, scales_P = _flatten(masks)
        fill_BCHW = self._fill(masks, pixels_BCHW)

        def one_pass(rows: slice) -> Tensor:
            index_P, mask_P, scale_P = map(self.batcher.fill, (images_P[rows], masks_P[rows], scales_P[rows]))
            masked_PCHW = _masked(pixels_BCHW, fill_BCHW, masks, index_P, mask_P, scale_P)
            found_2P = self._read(masked_PCHW, targets_B[index_P])
            count = len(images_P[rows])
            self._counts.forwards += count
            return found_2P[:, :count]

        outputs = self.batcher.run(len(images_P), one_pass)
        found_2P = torch.cat(outputs, 1) if outputs else pixels_BCHW.new_empty(2, 0)
        scores = pixels_BCHW.new_full((2, *masks.grids_BMuv.shape[:2], len(masks.scales)), torch.nan)
        scores[:, images_P, masks_P, scales_P] = found_2P
        return Scores(scores[0], scores[1])

    @torch.no_grad()
    def _read(self, masked_PCHW: Tensor, targets_P: Tensor) -> Tensor:
        """Logits and confidences of the targets, (2, P)."""
        logits_PN = self._forward(masked_PCHW)
        index_P1 = targets_P[:, None].long()
        return torch.stack([outputs_PN.gather(1, index_P1)[:, 0] for outputs_PN in (logits_PN, logits_PN.softmax(1))])

    def _fill(self, masks: MaskStream, pixels_BCHW: Tensor) -> Tensor | None:
        if masks.fill == "mean":  # the mean colour is zero in normalised space: nothing to add
            return None
        return baseline_pixels(masks.fill, pixels_BCHW, self._normalisation)


def _masked(
    pixels_BCHW: Tensor,
    fill_BCHW: Tensor | None,
    masks: MaskStream,
    images_P: Tensor,
    masks_P: Tensor,
    scales_P: Tensor,
) -> Tensor:
    """Lay one batch of scaled masks over their images."""
    height, width = pixels_BCHW.shape[-2:]
    factors_P = torch.tensor(masks.scales, device=pixels_BCHW.device, dtype=pixels_BCHW.dtype)[scales_P]
    mask_P1HW = enlarged(masks, masks.grids_BMuv[images_P, masks_P, None], (height, width))
    mask_P1HW = mask_P1HW * factors_P.view(-1, 1, 1, 1)
    masked_PCHW = pixels_BCHW[images_P] * mask_P1HW
    return masked_PCHW if fill_BCHW is None else masked_PCHW + fill_BCHW[images_P] * (1 - mask_P1HW)


def enlarged(masks: MaskStream, grids_PMuv: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge masks by the rule of their stream."""
    if masks.rule == "upsample_first":
        return heatmaps(grids_PMuv, size, align_corners=masks.align_corners)
    small = min_max(grids_PMuv) if masks.rule == "normalise_first" else grids_PMuv
    return upsample(small, size, align_corners=masks.align_corners)


def _flatten(masks: MaskStream) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of every pass into images, masks and scales, image by image."""
    grids_BMuv = masks.grids_BMuv
    keep_BM = masks.keep_BM
    if keep_BM is None:
        keep_BM = torch.ones(grids_BMuv.shape[:2], dtype=torch.bool, device=grids_BMuv.device)
    images_K, masks_K = keep_BM.nonzero(as_tuple=True)
    count = len(masks.scales)
    scales_P = torch.arange(count, device=grids_BMuv.device).repeat(len(images_K))
    return images_K.repeat_interleave(count), masks_K.repeat_interleave(count), scales_P
