"""The Scorer: every masked pass of every method and metric goes through here, and is counted.

Masks are described at grid resolution; only the Scorer enlarges them, lays them over the images and batches
them, over the flattened (image, mask, scale) axis. So batches are full whatever the number of channels. Of masks that
are equal one is run; what one method has asked, another one does not ask again.

Legend: I images, B rows (image, target), M masks, S scales, T targets of one image, P passes (flattened), C colours,
(u, v) grid, (H, W) pixels, N classes.
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
from pipeline.model.masks import MaskLook, MaskStream, enlarged, first_equal, masked


@dataclass(frozen=True)
class Scores:
    """What the model said of the explained class, for every image, mask and scale; NaN where not asked."""

    logits_BMS: Tensor
    confidences_BMS: Tensor


@dataclass(frozen=True)
class _Known:
    """What the model said of some masks at one scale; NaN where not asked."""

    look: MaskLook
    scale: float
    small_IMuv: Tensor
    found_2IMT: Tensor


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
        self._known: dict[int, list[_Known]] = {}
        self.batcher = batcher

    @contextmanager
    def remembering(self, evidence: Evidence) -> Iterator[None]:
        """Run no mask of this evidence twice for as long as this lasts, whoever asks."""
        self._known[id(evidence)] = []
        try:
            yield
        finally:
            del self._known[id(evidence)]

    def scores(self, pixels_BCHW: Tensor, masks: MaskStream, targets_B: Tensor) -> Scores:
        """Score the target class of every image under every mask.

        For mask m at scale s the model sees x * (s m) + fill * (1 - s m).

        Args:
            pixels_BCHW: normalised images.
            masks: the masks of each image.
            targets_B: class whose logit and softmax probability are read.
        """
        found_2BMST = self._sweep(pixels_BCHW, masks, targets_B[:, None], [])
        return Scores(found_2BMST[0, ..., 0], found_2BMST[1, ..., 0])

    def scores_of_rows(self, evidence: Evidence, masks: MaskStream) -> Scores:
        """Score every row (image, target) under masks that belong to the images: one sweep serves all targets.

        Args:
            evidence: rows; those of one image stand together.
            masks: the masks of each image, in the order of the images.
        """
        first_I = evidence.first_rows()
        known = self._known.get(id(evidence), [])
        found_2IMST = self._sweep(evidence.pixels_BCHW[first_I], masks, evidence.all_targets()[first_I], known)
        return Scores(*found_2IMST[:, evidence.places(), ..., evidence.ranks()].unbind(1))

    def target_scores(self, pixels: Callable[[Tensor], Tensor], targets_PT: Tensor) -> Tensor:
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

    def _sweep(self, pixels_ICHW: Tensor, masks: MaskStream, targets_IT: Tensor, known: list[_Known]) -> Tensor:
        """Logits and confidences of every target under every mask and scale, (2, I, M, S, T)."""
        small_IMuv = masks.small()
        shape = (2, *small_IMuv.shape[:2], len(masks.scales), targets_IT.shape[1])
        found_2IMST = pixels_ICHW.new_full(shape, torch.nan)
        for s, entry in _matching(known, masks, small_IMuv):
            found_2IMST[:, :, :, s] = entry.found_2IMT
        missing_IMS = masks.kept()[..., None] & found_2IMST[0].isnan().any(-1)
        first_IM = torch.stack([first_equal(small_Muv.flatten(1)) for small_Muv in small_IMuv])
        scored_2IMST = self._scored(pixels_ICHW, masks, small_IMuv, _at_first(missing_IMS, first_IM), targets_IT)
        spread_2IMST = scored_2IMST.gather(2, first_IM[None, :, :, None, None].expand_as(scored_2IMST))
        found_2IMST = torch.where(missing_IMS[None, ..., None], spread_2IMST, found_2IMST)
        if not masks.is_noisy:
            known.extend(
                _Known(masks.look, scale, small_IMuv, found_2IMST[:, :, :, s]) for s, scale in enumerate(masks.scales)
            )
        return found_2IMST

    def _scored(
        self, pixels_ICHW: Tensor, masks: MaskStream, small_IMuv: Tensor, wanted_IMS: Tensor, targets_IT: Tensor
    ) -> Tensor:
        """Run the wanted masks: logits and confidences of every target, (2, I, M, S, T); NaN for the others."""
        places_P3 = wanted_IMS.nonzero()
        images = _Images.of(pixels_ICHW, self._fill(masks.look, pixels_ICHW))
        found_2PT = self.target_scores(
            lambda at_P: _shown(images, masks, small_IMuv, places_P3[at_P]), targets_IT[places_P3[:, 0]]
        )
        scored_2IMST = pixels_ICHW.new_full((2, *wanted_IMS.shape, targets_IT.shape[1]), torch.nan)
        scored_2IMST[:, places_P3[:, 0], places_P3[:, 1], places_P3[:, 2]] = found_2PT
        return scored_2IMST

    @torch.no_grad()
    def _read(self, masked_PCHW: Tensor, targets_PT: Tensor) -> Tensor:
        """Logits and confidences of the targets, (2, P, T)."""
        logits_PN = self._forward(masked_PCHW)
        return torch.stack([outputs_PN.gather(1, targets_PT) for outputs_PN in (logits_PN, logits_PN.softmax(1))])

    def _fill(self, look: MaskLook, pixels_ICHW: Tensor) -> Tensor | None:
        if look.fill == "mean":  # the mean colour is zero in normalised space: nothing to add
            return None
        return baseline_pixels(look.fill, pixels_ICHW, self._normalisation)


@dataclass(frozen=True)
class _Images:
    """Images and what shows through their masks, colours last; the fill None is zero."""

    pixels_IHWC: Tensor
    fill_IHWC: Tensor | None

    @classmethod
    def of(cls, pixels_ICHW: Tensor, fill_ICHW: Tensor | None) -> "_Images":
        fill_IHWC = None if fill_ICHW is None else fill_ICHW.permute(0, 2, 3, 1).contiguous()
        return cls(pixels_ICHW.permute(0, 2, 3, 1).contiguous(), fill_IHWC)


def _shown(images: _Images, masks: MaskStream, small_IMuv: Tensor, places_P3: Tensor) -> Tensor:
    """Lay one pass of masks over their images, (P, C, H, W); a place is (image, mask, scale)."""
    images_P, masks_P, scales_P = places_P3.unbind(1)
    height, width = images.pixels_IHWC.shape[1:3]
    masks_PHW = enlarged(small_IMuv[images_P, masks_P], masks.look, (height, width))
    if masks.scales != (1.0,):
        factors_P = torch.tensor(masks.scales, device=masks_PHW.device, dtype=masks_PHW.dtype)[scales_P]
        masks_PHW = masks_PHW * factors_P[:, None, None]
    if masks.mask_noise_SHW is not None:
        masks_PHW = masks_PHW + masks.mask_noise_SHW[scales_P]
    fill_PHWC = None if images.fill_IHWC is None else images.fill_IHWC[images_P]
    shown_PCHW = masked(images.pixels_IHWC[images_P], fill_PHWC, masks_PHW).permute(0, 3, 1, 2)
    if masks.pixel_noise_SCHW is not None:
        shown_PCHW = shown_PCHW + masks.pixel_noise_SCHW[scales_P]
    return shown_PCHW if masks.look.resize is None else upsample(shown_PCHW, masks.look.resize)


def _matching(known: list[_Known], masks: MaskStream, small_IMuv: Tensor) -> Iterator[tuple[int, _Known]]:
    """What is known of these masks, by the place of its scale; what was learnt last comes last."""
    if masks.is_noisy:
        return
    for entry in known:
        if entry.look == masks.look and entry.scale in masks.scales and torch.equal(entry.small_IMuv, small_IMuv):
            yield masks.scales.index(entry.scale), entry


def _at_first(missing_IMS: Tensor, first_IM: Tensor) -> Tensor:
    """Ask in the place of a mask about the first one that is equal to it."""
    places_IMS = first_IM[..., None].expand_as(missing_IMS)
    return torch.zeros_like(missing_IMS, dtype=torch.int8).scatter_reduce(1, places_IMS, missing_IMS.char(), "amax") > 0
