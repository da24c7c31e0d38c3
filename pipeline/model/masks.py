"""Masks: described at grid resolution, and enlarged only for the pass that needs them.

Legend: I images, M masks, S scales, P rows of one pass, C colours, (u, v) grid, Z cells of a mask, (H, W) pixels;
images have their colours last, as the engine wants them.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.maps.heatmaps import is_degenerate, min_max, upsample
from pipeline.model.baselines import Baseline

MaskRule = Literal["upsample_first", "normalise_first", "as_is"]


@dataclass(frozen=True)
class MaskLook:
    """How masks are shown, whatever their shapes.

    Attributes:
        rule: "upsample_first" enlarges and then scales each mask to [0, 1]; "normalise_first" does it the
            other way round; "as_is" only enlarges. A constant mask scales to all zero.
        align_corners: how grid corners meet image corners when enlarging.
        fill: what shows through where the mask is 0; "mean" is zero in normalised space.
        complement: show 1 - mask instead of the mask.
        resize: size (H, W) to which masked images are brought before the model sees them.
    """

    rule: MaskRule = "as_is"
    align_corners: bool = False
    fill: Baseline = "mean"
    complement: bool = False
    resize: tuple[int, int] | None = None


@dataclass(frozen=True)
class MaskStream:
    """Masks of a batch of images that are never all enlarged at once.

    Attributes:
        grids_IMuv: masks at grid resolution (or at image resolution).
        look: how they are shown.
        scales: every mask is applied once per scale s, as x * (s * mask).
        keep_IM: masks that are worth a pass; None keeps all. The others score NaN.
        mask_noise_SHW: added to the enlarged mask at each scale.
        pixel_noise_SCHW: added to the masked image at each scale.
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
        """Masks that are worth a pass, (I, M)."""
        if self.keep_IM is not None:
            return self.keep_IM
        return torch.ones(self.grids_IMuv.shape[:2], dtype=torch.bool, device=self.grids_IMuv.device)

    def small(self) -> Tensor:
        """The masks as far as they can be made on the grid, (I, M, u, v): what is equal here looks equal.

        Scaling to [0, 1] undoes any factor and shift, so that a mask which will be scaled can be scaled now as well.
        """
        if self.look.rule == "as_is":
            return self.grids_IMuv
        return min_max(self.grids_IMuv).masked_fill(is_degenerate(self.grids_IMuv)[..., None, None], 0.0)


def first_equal(masks_MZ: Tensor) -> Tensor:
    """Index of the first mask with the same bits, (M,); that of the mask itself where it is the first."""
    own_M = torch.arange(len(masks_MZ), device=masks_MZ.device)
    bits_MZ = (masks_MZ.float().contiguous() + 0.0).view(torch.int32).long()  # -0 is 0
    factors_Z = torch.randint(
        torch.iinfo(torch.int64).max, bits_MZ.shape[1:], generator=torch.Generator().manual_seed(0)
    ).to(masks_MZ.device)
    _, groups_M = torch.unique((bits_MZ * factors_Z).sum(1), return_inverse=True)
    first_M = torch.full_like(own_M, len(own_M)).scatter_reduce(0, groups_M, own_M, "amin")[groups_M]
    return torch.where((bits_MZ[first_M] == bits_MZ).all(1), first_M, own_M)  # sums may meet by chance


def enlarged(small_Puv: Tensor, look: MaskLook, size: tuple[int, int]) -> Tensor:
    """Enlarge masks made by `MaskStream.small`, (P, H, W)."""
    large_PHW = upsample(small_Puv[:, None], size, align_corners=look.align_corners)[:, 0]
    if look.rule == "upsample_first":
        low_P, high_P = torch.aminmax(large_PHW.flatten(1), dim=1)
        span_P = torch.where(high_P > low_P, high_P - low_P, 1.0)
        large_PHW = (large_PHW - low_P[:, None, None]).div_(span_P[:, None, None])
    return 1 - large_PHW if look.complement else large_PHW


def masked(pixels_PHWC: Tensor, fill_PHWC: Tensor | None, masks_PHW: Tensor) -> Tensor:
    """Lay masks over images of one's own, x * m + fill * (1 - m); the fill None is zero."""
    shown_PHWC = pixels_PHWC.mul_(masks_PHW[..., None])
    return shown_PHWC if fill_PHWC is None else shown_PHWC.addcmul_(fill_PHWC, (1 - masks_PHW)[..., None])
