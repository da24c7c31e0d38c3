"""Turns raw maps at grid resolution into heat maps at image resolution: upsamples, then scales to [0, 1].

Every method, metric and picture uses the same order: sum over channels, ReLU (if the method has one), upsampling,
min-max scaling.

Legend: B images, M maps, (u, v) grid, (H, W) pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional


def upsample(maps_BMuv: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Upsample maps bilinearly to (H, W); maps of that size are returned unchanged."""
    if tuple(maps_BMuv.shape[-2:]) == tuple(size):
        return maps_BMuv
    return functional.interpolate(maps_BMuv, size=size, mode="bilinear", align_corners=align_corners)


def min_max(maps: Tensor) -> Tensor:
    """Scale each map (..., H, W) to [0, 1]; a constant map becomes zero."""
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    flat = span == 0
    return torch.where(flat, torch.zeros_like(maps), (maps - low) / torch.where(flat, torch.ones_like(span), span))


def is_degenerate(maps: Tensor) -> Tensor:
    """Return True for maps (..., u, v) that are constant or not finite; their heat maps are zero."""
    span = maps.amax((-2, -1)) - maps.amin((-2, -1))
    return ~(span > 0) | span.isinf()  # NaN > 0 is False


def heatmaps(maps_BMuv: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Turn raw maps into heat maps (B, M, H, W) in [0, 1]: bilinear upsampling, then min-max scaling.

    Degenerate maps are set to zero explicitly, because upsampling a constant leaves rounding errors, which min-max
    scaling would amplify.
    """
    large_BMHW = upsample(maps_BMuv, size, align_corners=align_corners)
    return min_max(large_BMHW).masked_fill(is_degenerate(maps_BMuv)[..., None, None], 0.0)
