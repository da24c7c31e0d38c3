"""The Scorer: every masked pass of every method and metric goes through here, and is counted.

Masks are described at grid resolution; only the Scorer enlarges them, lays them over the images and batches
them, over the flattened (image, mask, scale) axis. So batches are full whatever the number of channels.

Legend: I images, B rows (image, target), M masks, S scales, T targets of one image, P passes (flattened), C colours,
(u, v) grid, (H, W) pixels, N classes.
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
from pipeline.model.evidence import Evidence

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
        mask_noise_SHW: added to the enlarged mask at each scale.
        pixel_noise_SCHW: added to the masked image at each scale.
        complement: show 1 - mask instead of the mask.
        resize: size (H, W) to which masked images are brought before the model sees them.
    """

    grids_BMuv: Tensor
    rule: MaskRule = "as_is"
    scales: tuple[float, ...] = (1.0,)
    align_corners: bool = False
    fill: Baseline = "mean"
    keep_BM: Tensor | None = None
    mask_noise_SHW: Tensor | None = None
    pixel_noise_SCHW: Tensor | None = None
    resize: tuple[int, int] | None = None
    complement: bool = False


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
        found_2BMST = self._sweep(pixels_BCHW, masks, targets_B[:, None])
        return Scores(found_2BMST[0, ..., 0], found_2BMST[1, ..., 0])

    def scores_of_rows(self, evidence: Evidence, masks: MaskStream) -> Scores:
        """Score every row (image, target) under masks that belong to the images: one sweep serves all targets.

        Args:
            evidence: rows; those of one image stand together.
            masks: the masks of each image, in the order of the images.
        """
        first_I = evidence.first_rows()
        found_2IMST = self._sweep(evidence.pixels_BCHW[first_I], masks, evidence.all_targets()[first_I])
        return Scores(*found_2IMST[:, evidence.places(), ..., evidence.ranks()].unbind(1))

    def answers(self, pixels: Callable[[Tensor], Tensor], targets_PT: Tensor) -> Tensor:
        """Logits and confidences of the targets in any images, (2, P, T), in full passes.

        Args:
            pixels: makes the images (p, C, H, W) of the given places (p,); never all of them at once.
            targets_PT: classes to read of each image.
        """
        places_P = torch.arange(len(targets_PT), device=targets_PT.device)

        def one_pass(rows: slice) -> Tensor:
            filled_P = self.batcher.fill(places_P[rows])
            found_2PT = self._read(pixels(filled_P), targets_PT[filled_P])[:, : len(places_P[rows])]
            self._counts.forwards += found_2PT.shape[1]
            return found_2PT

        passes = self.batcher.run(len(targets_PT), one_pass)
        return torch.cat(passes, 1) if passes else targets_PT.new_empty((2, *targets_PT.shape), dtype=torch.float32)

    def _sweep(self, pixels_ICHW: Tensor, masks: MaskStream, targets_IT: Tensor) -> Tensor:
        """Logits and confidences of every target under every mask and scale, (2, I, M, S, T)."""
        images_P, masks_P, scales_P = _flatten(masks)
        fill_ICHW = self._fill(masks, pixels_ICHW)
        found_2PT = self.answers(
            lambda at_P: _masked(pixels_ICHW, fill_ICHW, masks, images_P[at_P], masks_P[at_P], scales_P[at_P]),
            targets_IT[images_P],
        )
        shape = (2, *masks.grids_BMuv.shape[:2], len(masks.scales), targets_IT.shape[1])
        found_2IMST = pixels_ICHW.new_full(shape, torch.nan)
        found_2IMST[:, images_P, masks_P, scales_P] = found_2PT
        return found_2IMST

    @torch.no_grad()
    def _read(self, masked_PCHW: Tensor, targets_PT: Tensor) -> Tensor:
        """Logits and confidences of the targets, (2, P, T)."""
        logits_PN = self._forward(masked_PCHW)
        return torch.stack([outputs_PN.gather(1, targets_PT) for outputs_PN in (logits_PN, logits_PN.softmax(1))])

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
    mask_P1HW = (1 - mask_P1HW if masks.complement else mask_P1HW) * factors_P.view(-1, 1, 1, 1)
    if masks.mask_noise_SHW is not None:
        mask_P1HW = mask_P1HW + masks.mask_noise_SHW[scales_P, None]
    masked_PCHW = pixels_BCHW[images_P] * mask_P1HW
    if fill_BCHW is not None:
        masked_PCHW = masked_PCHW + fill_BCHW[images_P] * (1 - mask_P1HW)
    if masks.pixel_noise_SCHW is not None:
        masked_PCHW = masked_PCHW + masks.pixel_noise_SCHW[scales_P]
    return masked_PCHW if masks.resize is None else upsample(masked_PCHW, masks.resize)


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
