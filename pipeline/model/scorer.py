"""Runs, batches and counts the forward passes over masked images, for all methods and metrics.

Masks are given at grid resolution. The Scorer upsamples them, applies them to the images, and batches over the
flattened (image, mask, scale) axis, so that batches are full for any number of channels. Only one of several equal
masks is run, and the scores of one method are reused by the others.

Legend: I images, B rows (image, target), M masks, S scales, T targets of one image, P masked images (flattened),
C colours, (u, v) grid, (H, W) pixels, N classes. A leading 2 stands for (logit, confidence).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.maps.heatmaps import upsample
from pipeline.model.baselines import Normalisation, baseline_pixels
from pipeline.model.batching import Batcher
from pipeline.model.counts import Counts
from pipeline.model.evidence import Evidence
from pipeline.model.masks import MaskLook, MaskStream, first_equal, masked, upsampled
from pipeline.model.outputs import SOFTMAX, Outputs


@dataclass(frozen=True)
class PassRows:
    """The rows of one pass.

    Attributes:
        index_P: their indices, on the device of the model; the last one is repeated until the pass is full.
        start, stop: the same for the host, without the repetitions, so that it need not read them from the device.
    """

    index_P: Tensor
    start: int
    stop: int


@dataclass(frozen=True)
class Scores:
    """Logit and confidence of the target class for every row, mask and scale; NaN for masks that were not run."""

    logits_BMS: Tensor
    confidences_BMS: Tensor


@dataclass(frozen=True)
class _CachedScores:
    """Cached scores of some masks at one scale; NaN for masks that were not run."""

    look: MaskLook
    scale: float
    small_IMuv: Tensor
    scores_2IMT: Tensor


class Scorer:
    """Runs masked images through a model, in full batches.

    Args:
        forward: maps normalised images (P, C, H, W) to logits (P, N), float32.
        counts: counts the forward passes.
        normalisation: mean and std of the images; the fill "black" needs them.
        batcher: splits and pads the passes.
        outputs: which confidences belong to the logits.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        counts: Counts,
        normalisation: Normalisation,
        batcher: Batcher,
        outputs: Outputs = SOFTMAX,
    ) -> None:
        self._forward = forward
        self._counts = counts
        self._normalisation = normalisation
        self._cache: dict[int, list[_CachedScores]] = {}
        self.batcher = batcher
        self._outputs = outputs

    @contextmanager
    def caching(self, evidence: Evidence) -> Iterator[None]:
        """Cache the scores of this evidence while the context is open, so that no mask without noise runs twice."""
        self._cache[id(evidence)] = []
        try:
            yield
        finally:
            del self._cache[id(evidence)]

    def scores(self, pixels_BCHW: Tensor, masks: MaskStream, targets_B: Tensor) -> Scores:
        """Score the target class of every image under every mask.

        For mask m at scale s the input of the model is x * (s m) + fill * (1 - s m).

        Args:
            pixels_BCHW: normalised images.
            masks: the masks of each image.
            targets_B: target class of each image.
        """
        scores_2BMST = self._sweep(pixels_BCHW, masks, targets_B[:, None], [])
        return Scores(scores_2BMST[0, ..., 0], scores_2BMST[1, ..., 0])

    def scores_of_rows(self, evidence: Evidence, masks: MaskStream) -> Scores:
        """Score every row (image, target) under the masks of its image; the targets of an image share the passes.

        Args:
            evidence: the rows.
            masks: the masks of each image, in the order of the images.
        """
        first_I = evidence.first_rows()
        cached = self._cache.get(id(evidence), [])
        scores_2IMST = self._sweep(evidence.pixels_BCHW[first_I], masks, evidence.all_targets()[first_I], cached)
        return Scores(*scores_2IMST[:, evidence.places(), ..., evidence.ranks()].unbind(1))

    def target_scores(self, pixels: "Callable[[PassRows], Tensor]", targets_PT: Tensor) -> Tensor:
        """Return the logits and confidences of the targets in any images, (2, P, T), in full passes.

        Args:
            pixels: returns the images (p, C, H, W) of one pass.
            targets_PT: target classes of each image.
        """
        all_P = torch.arange(len(targets_PT), device=targets_PT.device)

        def one_pass(rows: slice) -> Tensor:
            padded_P = self.batcher.pad(all_P[rows])
            masked_PCHW = pixels(PassRows(padded_P, rows.start, rows.stop))
            scores_2PT = self._read(masked_PCHW, targets_PT[padded_P])[:, : rows.stop - rows.start]
            self._counts.forwards += scores_2PT.shape[1]
            return scores_2PT

        passes = self.batcher.run(len(targets_PT), one_pass)
        return torch.cat(passes, 1) if passes else targets_PT.new_empty((2, *targets_PT.shape), dtype=torch.float32)

    def _sweep(self, pixels_ICHW: Tensor, masks: MaskStream, targets_IT: Tensor, cached: list[_CachedScores]) -> Tensor:
        """Return the scores of every target under every mask and scale, (2, I, M, S, T), from the cache if possible."""
        small_IMuv = masks.small()
        shape = (2, *small_IMuv.shape[:2], len(masks.scales), targets_IT.shape[1])
        scores_2IMST = pixels_ICHW.new_full(shape, torch.nan)
        for s, entry in _cached_matches(cached, masks, small_IMuv):
            scores_2IMST[:, :, :, s] = entry.scores_2IMT
        missing_IMS = masks.kept()[..., None] & scores_2IMST[0].isnan().any(-1)
        first_IM = torch.stack([first_equal(small_Muv.flatten(1)) for small_Muv in small_IMuv])
        needed_IMS = _at_first_equal(missing_IMS, first_IM)
        new_2IMST = self._scored(pixels_ICHW, masks, small_IMuv, needed_IMS, targets_IT)
        spread_2IMST = new_2IMST.gather(2, first_IM[None, :, :, None, None].expand_as(new_2IMST))
        scores_2IMST = torch.where(missing_IMS[None, ..., None], spread_2IMST, scores_2IMST)
        if not masks.is_noisy:
            cached.extend(
                _CachedScores(masks.look, scale, small_IMuv, scores_2IMST[:, :, :, s])
                for s, scale in enumerate(masks.scales)
            )
        return scores_2IMST

    def _scored(
        self, pixels_ICHW: Tensor, masks: MaskStream, small_IMuv: Tensor, needed_IMS: Tensor, targets_IT: Tensor
    ) -> Tensor:
        """Run the needed masks and return the scores of every target, (2, I, M, S, T); NaN for the other masks."""
        places_P3 = needed_IMS.nonzero()  # (image, mask, scale)
        images = _Images.of(pixels_ICHW, self._fill(masks.look, pixels_ICHW))
        scales_S = torch.tensor(masks.scales, dtype=small_IMuv.dtype, device=small_IMuv.device)
        scores_2PT = self.target_scores(
            lambda rows: _masked_images(images, masks, small_IMuv, scales_S, places_P3[rows.index_P]),
            targets_IT[places_P3[:, 0]],
        )
        new_2IMST = pixels_ICHW.new_full((2, *needed_IMS.shape, targets_IT.shape[1]), torch.nan)
        new_2IMST[:, places_P3[:, 0], places_P3[:, 1], places_P3[:, 2]] = scores_2PT
        return new_2IMST

    @torch.no_grad()
    def _read(self, masked_PCHW: Tensor, targets_PT: Tensor) -> Tensor:
        """Run one pass and return the logits and confidences of the targets, (2, P, T)."""
        logits_PN = self._forward(masked_PCHW)
        return self._outputs.read(logits_PN, targets_PT)

    def _fill(self, look: MaskLook, pixels_ICHW: Tensor) -> Tensor | None:
        if look.fill == "mean":  # zero in normalised space, so that there is nothing to add
            return None
        return baseline_pixels(look.fill, pixels_ICHW, self._normalisation)


@dataclass(frozen=True)
class _Images:
    """Images and the baselines that fill their masked pixels, both channels-last; a fill of None is zero."""

    pixels_IHWC: Tensor
    fill_IHWC: Tensor | None

    @classmethod
    def of(cls, pixels_ICHW: Tensor, fill_ICHW: Tensor | None) -> "_Images":
        fill_IHWC = None if fill_ICHW is None else fill_ICHW.permute(0, 2, 3, 1).contiguous()
        return cls(pixels_ICHW.permute(0, 2, 3, 1).contiguous(), fill_IHWC)


def _masked_images(
    images: _Images, masks: MaskStream, small_IMuv: Tensor, scales_S: Tensor, places_P3: Tensor
) -> Tensor:
    """Return the masked images of one pass, (P, C, H, W), for (image, mask, scale) indices."""
    images_P, masks_P, scales_P = places_P3.unbind(1)
    height, width = images.pixels_IHWC.shape[1:3]
    masks_PHW = upsampled(small_IMuv[images_P, masks_P], masks.look, (height, width))
    if masks.scales != (1.0,):
        masks_PHW = masks_PHW * scales_S[scales_P, None, None]
    if masks.mask_noise_SHW is not None:
        masks_PHW = masks_PHW + masks.mask_noise_SHW[scales_P]
    fill_PHWC = None if images.fill_IHWC is None else images.fill_IHWC[images_P]
    masked_PCHW = masked(images.pixels_IHWC[images_P], fill_PHWC, masks_PHW).permute(0, 3, 1, 2)
    if masks.pixel_noise_SCHW is not None:
        masked_PCHW = masked_PCHW + masks.pixel_noise_SCHW[scales_P]
    return masked_PCHW if masks.look.resize is None else upsample(masked_PCHW, masks.look.resize)


def _cached_matches(
    cached: list[_CachedScores], masks: MaskStream, small_IMuv: Tensor
) -> Iterator[tuple[int, _CachedScores]]:
    """Yield the cached scores of these masks with the index of their scale, oldest first."""
    if masks.is_noisy:
        return
    for entry in cached:
        if entry.look == masks.look and entry.scale in masks.scales and torch.equal(entry.small_IMuv, small_IMuv):
            yield masks.scales.index(entry.scale), entry


def _at_first_equal(missing_IMS: Tensor, first_IM: Tensor) -> Tensor:
    """Move each missing mask to the first mask that is equal to it, (I, M, S), so that equal masks run once."""
    first_IMS = first_IM[..., None].expand_as(missing_IMS)
    return torch.zeros_like(missing_IMS, dtype=torch.int8).scatter_reduce(1, first_IMS, missing_IMS.char(), "amax") > 0
