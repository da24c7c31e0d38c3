"""From raw maps at grid resolution to heat maps at image resolution: upsample, then scale to [0, 1].

The order is sum over channels, ReLU (where the method has one), upsampling, min-max, and it is the same for
every method, metric and picture. Legend: B images, M maps, (u, v) grid, (H, W) pixels.
"""

import torch
from torch import Tensor
from torch.nn import functional


def upsample(maps_BMuv: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Enlarge maps bilinearly to (H, W); maps of that size are returned as they are."""
    if tuple(maps_BMuv.shape[-2:]) == tuple(size):
        return maps_BMuv
    return functional.interpolate(maps_BMuv, size=size, mode="bilinear", align_corners=align_corners)


def min_max(maps: Tensor) -> Tensor:
    """Scale each map (..., H, W) to [0, 1]; a constant map has no shape to show and becomes all zero."""
    low = maps.amin((-2, -1), keepdim=True)
    span = maps.amax((-2, -1), keepdim=True) - low
    flat = span == 0
    return torch.where(flat, torch.zeros_like(maps), (maps - low) / torch.where(flat, torch.ones_like(span), span))


def is_degenerate(maps: Tensor) -> Tensor:
    """Tell which maps (..., u, v) show nothing: constant, or not finite. Their heat map is all zero."""
    span = maps.amax((-2, -1)) - maps.amin((-2, -1))
    return ~(span > 0) | span.isinf()  # NaN is larger than nothing


def heatmaps(maps_BMuv: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Turn raw maps into heat maps (B, M, H, W) in [0, 1]: bilinear upsampling, then min-max.

    A degenerate map is set to zero by itself: enlarging a constant leaves rounding noise, which min-max would blow up.
    """
    large_BMHW = upsample(maps_BMuv, size, align_corners=align_corners)
    return min_max(large_BMHW).masked_fill(is_degenerate(maps_BMuv)[..., None, None], 0.0)
