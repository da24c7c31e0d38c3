"""Masks (1 = kept), stored at grid resolution and upsampled only for the pass that applies them.

Legend: I images, M masks, S scales, P rows of one pass, C colours, (u, v) grid, Z cells of a mask, (H, W) pixels.
Images are channels-last, the layout that the engine runs on.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.maps.heatmaps import is_degenerate, min_max, upsample
from pipeline.model.baselines import Baseline

MaskRule = Literal["upsample_first", "normalise_first", "as_is"]


@dataclass(frozen=True)
class MaskLook:
    """How masks are upsampled and applied to images.

    Attributes:
        rule: "upsample_first" upsamples each mask and then scales it to [0, 1]; "normalise_first" scales it and then
            upsamples; "as_is" only upsamples. Scaling turns a constant mask into zeros.
        align_corners: the option of bilinear interpolation.
        fill: the baseline that replaces pixels where the mask is 0; "mean" is zero in normalised space.
        complement: apply 1 - mask instead of the mask.
        resize: size (H, W) to which masked images are resized before the forward pass; None keeps their size.
    """

    rule: MaskRule = "as_is"
    align_corners: bool = False
    fill: Baseline = "mean"
    complement: bool = False
    resize: tuple[int, int] | None = None


@dataclass(frozen=True)
class MaskStream:
    """Masks of a batch of images, which are upsampled pass by pass and never all at once.

    Attributes:
        grids_IMuv: masks at grid resolution (or at image resolution).
        look: how they are upsampled and applied.
        scales: every mask is applied once per scale s, as x * (s * mask).
        keep_IM: True for masks to run; the scores of the others are NaN. None runs all.
        mask_noise_SHW: noise added to the upsampled mask at each scale.
        pixel_noise_SCHW: noise added to the masked image at each scale.
    """

    grids_IMuv: Tensor
    look: MaskLook = MaskLook()
    scales: tuple[float, ...] = (1.0,)
    keep_IM: Tensor | None = None
    mask_noise_SHW: Tensor | None = None
    pixel_noise_SCHW: Tensor | None = None

    @property
    def is_noisy(self) -> bool:
        """Whether noise is added."""
        return self.mask_noise_SHW is not None or self.pixel_noise_SCHW is not None

    def kept(self) -> Tensor:
        """Return True for the masks to run, (I, M)."""
        if self.keep_IM is not None:
            return self.keep_IM
        return torch.ones(self.grids_IMuv.shape[:2], dtype=torch.bool, device=self.grids_IMuv.device)

    def small(self) -> Tensor:
        """Return the masks at grid resolution, (I, M, u, v), in a form where masks that are applied alike are equal.

        Scaling to [0, 1] after upsampling removes any factor and offset, so that a mask that will be scaled then can
        also be scaled now.
        """
        if self.look.rule == "as_is":
            return self.grids_IMuv
        return min_max(self.grids_IMuv).masked_fill(is_degenerate(self.grids_IMuv)[..., None, None], 0.0)


def first_equal(masks_MZ: Tensor) -> Tensor:
    """Return the index of the first mask with the same bits as each mask, (M,); the host does not wait for a device."""
    own_M = torch.arange(len(masks_MZ), device=masks_MZ.device)
    bits_MZ = (masks_MZ.float().contiguous() + 0.0).view(torch.int32).long()  # + 0.0 turns -0 into 0
    hashes_M, order_M = (bits_MZ * _factors(bits_MZ.shape[1], bits_MZ.device)).sum(1).sort(stable=True)
    is_new_M = functional.pad(hashes_M.diff() != 0, (1, 0), value=True)[: len(own_M)]
    leader_M = order_M[torch.where(is_new_M, own_M, 0).cummax(0).values]  # a stable order keeps the first one in front
    first_M = torch.empty_like(own_M).scatter_(0, order_M, leader_M)
    return torch.where((bits_MZ[first_M] == bits_MZ).all(1), first_M, own_M)  # different masks may have equal hashes


@lru_cache(maxsize=4)
def _factors(cells: int, device: torch.device) -> Tensor:
    """Return the random factors of the hash, (Z,), the same for all masks."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(torch.iinfo(torch.int64).max, (cells,), generator=random).to(device)


def upsampled(small_Puv: Tensor, look: MaskLook, size: tuple[int, int]) -> Tensor:
    """Upsample masks from `MaskStream.small` and apply the rest of the rule, (P, H, W)."""
    large_PHW = upsample(small_Puv[:, None], size, align_corners=look.align_corners)[:, 0]
    if look.rule == "upsample_first":
        low_P, high_P = torch.aminmax(large_PHW.flatten(1), dim=1)
        span_P = torch.where(high_P > low_P, high_P - low_P, 1.0)
        large_PHW = (large_PHW - low_P[:, None, None]).div_(span_P[:, None, None])
    return 1 - large_PHW if look.complement else large_PHW


def masked(pixels_PHWC: Tensor, fill_PHWC: Tensor | None, masks_PHW: Tensor) -> Tensor:
    """Apply masks to images in place, x * m + fill * (1 - m); a fill of None is zero."""
    masked_PHWC = pixels_PHWC.mul_(masks_PHW[..., None])
    return masked_PHWC if fill_PHWC is None else masked_PHWC.addcmul_(fill_PHWC, (1 - masks_PHW)[..., None])
