"""Regions of suspected patches: grown to what is constant across images, enlarged to pixels, and put in words.

Legend: B images, (u, v) the common grid of maps, (H, W) pixels, C channels.
"""

import numpy as np

from pipeline.audit.maps import GRID
from pipeline.audit.values import Flags
from pipeline.maps.codec import FloatArray

MAX_SPREAD = 0.25
"""A pixel is constant when its median absolute deviation among images of the class is at most this share of that among
images of other classes. The median bears some images of the class without the patch."""

MIN_SPREAD = 0.01
"""Where images of other classes vary less, a pixel tells nothing about the class."""

MIN_CONSTANT = 0.25
"""A cell is constant when at least this share of its pixels is."""

_SIDES = ("top", "bottom", "left", "right")
_ALONG = 0.75
"""A region runs along a side when it covers at least this share of it."""


def grown(region_uv: Flags, class_BHWC: FloatArray, other_BHWC: FloatArray, most: float) -> Flags:
    """Extend a region to the constant cells that it touches, and to the border of the image if one cell away.

    Args:
        region_uv: the cells that maps suggest.
        class_BHWC: images of the class, in [0, 1].
        other_BHWC: images of other classes, in [0, 1].
        most: largest share of the image; a region that would grow beyond it leaves out the cells around the constant
            ones, such as those inside of a frame, or else stays as it is.
    """
    from scipy import ndimage  # costs time to import

    square = np.ones((3, 3))
    constant_uv = constant_cells(class_BHWC, other_BHWC)
    touched_uv = constant_uv & ndimage.binary_propagation(region_uv, square, mask=constant_uv | region_uv)
    larger_uv: Flags = to_border(region_uv | ndimage.binary_dilation(touched_uv, square))
    exact_uv: Flags = region_uv | touched_uv
    return next((chosen_uv for chosen_uv in (larger_uv, exact_uv) if chosen_uv.mean() <= most), region_uv)


def constant_cells(class_BHWC: FloatArray, other_BHWC: FloatArray) -> Flags:
    """Tell which cells vary little among images of a class, compared with images of other classes."""
    own_HW, others_HW = _spread(class_BHWC), _spread(other_BHWC)
    constant_HW = (own_HW <= MAX_SPREAD * others_HW) & (others_HW >= MIN_SPREAD)
    rows, columns = _cells_of(constant_HW.shape)
    counts_uv, pixels_uv = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
    np.add.at(counts_uv, (rows[:, None], columns[None, :]), constant_HW)
    np.add.at(pixels_uv, (rows[:, None], columns[None, :]), 1)
    cells_uv: Flags = (pixels_uv > 0) & (counts_uv >= MIN_CONSTANT * pixels_uv)
    return cells_uv


def to_border(region_uv: Flags) -> Flags:
    """Extend a region over the outermost cells where it reaches the cells beside them."""
    extended_uv = region_uv.copy()
    for cells_uv in (extended_uv, extended_uv.T):
        cells_uv[0] |= cells_uv[1]
        cells_uv[-1] |= cells_uv[-2]
    return extended_uv


def enlarged(region_uv: Flags, size: tuple[int, ...]) -> Flags:
    """Enlarge a region to the pixels of an image of a size (H, W)."""
    rows, columns = _cells_of(size)
    region_HW: Flags = region_uv[rows[:, None], columns[None, :]]
    return region_HW


def elsewhere(region_HW: Flags) -> Flags:
    """Return the region mirrored or shifted by half the image, whichever overlaps the original least."""
    height, width = region_HW.shape
    mirrored = [region_HW[::-1], region_HW[:, ::-1], region_HW[::-1, ::-1]]
    moved = [*mirrored, np.roll(region_HW, (height // 2, width // 2), (0, 1))]
    return min(moved, key=lambda mask: int((mask & region_HW).sum()))


def described(region_uv: Flags) -> str:
    """Describe the position of a region in words: its middle or, for frames and bars, the sides that it runs along."""
    lines_uv = (region_uv[0], region_uv[-1], region_uv[:, 0], region_uv[:, -1])
    sides = [name for name, line in zip(_SIDES, lines_uv, strict=True) if line.mean() >= _ALONG]
    if len(sides) == len(_SIDES):
        return "all around the border"
    if len(sides) > 1:
        return f"along the {', '.join(sides[:-1])} and {sides[-1]} border"
    rows, columns = (np.flatnonzero(region_uv.any(axis)).mean() / (GRID - 1) for axis in (1, 0))
    vertical = "at the top" if rows < 1 / 3 else "at the bottom" if rows > 2 / 3 else "in the middle"
    across = " left" if columns < 1 / 3 else " right" if columns > 2 / 3 else ""
    return vertical + across


def _spread(pictures_BHWC: FloatArray) -> FloatArray:
    """Return the median absolute deviation of each pixel among images, as the mean over channels, (H, W)."""
    deviations_BHWC = np.abs(pictures_BHWC - np.median(pictures_BHWC, axis=0))
    spread_HW: FloatArray = np.median(deviations_BHWC, axis=0).mean(-1)
    return spread_HW


def _cells_of(size: tuple[int, ...]) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]:
    """Return the cell of each row and of each column of pixels."""
    return tuple(np.arange(side) * GRID // side for side in size)
