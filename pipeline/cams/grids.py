"""Resampling that several methods share: maps of other grids, and maps of pixels averaged over the cells of a grid.

Legend: B images, L layers, (u, v) grid, (H, W) pixels.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline.maps.heatmaps import upsample

Grid = Annotated[int, Field(ge=1)]
"""Cells along each side of a grid."""


def at_finest(maps: list[Tensor]) -> Tensor:
    """Upsample maps (B, u, v) to the grid of the first, (B, L, u, v); a constant map stays exactly constant."""
    size = (maps[0].shape[1], maps[0].shape[2])
    return torch.stack([_upsampled(map_Buv, size) for map_Buv in maps], 1)


def pooled(maps_BHW: Tensor, grid: int) -> Tensor:
    """Average maps over the cells of a grid; maps smaller than the grid are returned unchanged."""
    size = (min(grid, maps_BHW.shape[1]), min(grid, maps_BHW.shape[2]))
    return functional.adaptive_avg_pool2d(maps_BHW[:, None], size)[:, 0]


def _upsampled(map_Buv: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample maps, but copy constant ones: interpolation leaves rounding noise, which min-max would amplify."""
    constant_B11 = map_Buv.amin((1, 2), keepdim=True) == map_Buv.amax((1, 2), keepdim=True)
    return torch.where(constant_B11, map_Buv[:, :1, :1], upsample(map_Buv[:, None], size)[:, 0])
