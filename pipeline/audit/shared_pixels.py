"""Pixels that images of one class share and images of other classes do not: stripes, frames, stamps, backgrounds.

Maps need not show such pixels: for a stripe at the border, a model may look there in every class, and find it in one.
Images of one half suggest a region; the model then tests it as it tests the regions that maps suggest.

Legend: B images, (u, v) the common grid of maps, C channels, (h, w) the pixels that are read: at most about 8 to a side
of a cell.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.audit.maps import GRID
from pipeline.audit.statistics import Numbers
from pipeline.audit.values import Flags
from pipeline.maps.codec import FloatArray

MIN_CARRIERS = 0.35
"""Share of the images of a class that must have a pixel in common."""

MAX_IN_OTHERS = 0.25
"""Images of other classes may have the pixel, too: at most this part of the share of the class."""

MAX_SHARED = 0.5
"""Share of the image; for a larger region, no equal area elsewhere can serve as the control."""

_TOLERANCE = 0.05
"""Pixels within this distance in each channel are the same: lossy files move them by about as much."""

_MIN_OF_CELL, _MIN_BESIDE = 0.125, 0.02
"""Share of the pixels of a cell that makes it part of a region; beside such a cell, fewer do: the edge of a stripe."""

_PART, _MIN_CLEAR = 0.25, 0.9
"""An image clearly carries a region, or clearly does not, when all but this share of its pixels say so; and the share
of images of which this must hold."""

_MOST_PARTS = 8
_POINTS = 8


@dataclass(frozen=True)
class Shared:
    """The pixels that images of a class share.

    Attributes:
        size: height and width of the images.
        value_hwC: the value that most of the images have, in [0, 1].
        shared_hw: where images of the class share it, and images of other classes do not.
    """

    size: tuple[int, ...]
    value_hwC: FloatArray
    shared_hw: Flags

    def regions(self) -> list[Flags]:
        """Return the cells of shared pixels, (u, v): all as one region whatever its shape, then each connected part."""
        from scipy import ndimage  # costs time to import

        square, shares_uv = np.ones((3, 3)), self._shares(self.shared_hw)
        region_uv: Flags = shares_uv >= _MIN_OF_CELL
        if not region_uv.any():
            return []
        region_uv |= ndimage.binary_dilation(region_uv, square) & (shares_uv >= _MIN_BESIDE)
        parts_uv, count = ndimage.label(region_uv, structure=square)
        parts = sorted((parts_uv == part for part in range(1, count + 1)), key=lambda cells_uv: -int(cells_uv.sum()))
        return [region_uv, *parts[:_MOST_PARTS]] if count > 1 else [region_uv]

    def carriers(self, region_uv: Flags, searched_BHWC: FloatArray, pictures_BHWC: FloatArray) -> Flags | None:
        """Tell which images have the shared pixels of a region, (B,); None where no such thing can be told.

        Args:
            region_uv: the region.
            searched_BHWC: images of the class of the half that is searched. Most must have all of the pixels, or none:
                of a transparent patch, or of parts of several, images have some.
            pictures_BHWC: images to be told.
        """
        rows, columns = map(_cells, self.size)
        inside_hw = region_uv[rows[:, None], columns[None, :]] & self.shared_hw
        if not (self._shares(inside_hw) >= _MIN_OF_CELL).any():
            return None
        own_B, pictures_B = (
            _agree(_read(pixels_BHWC), self.value_hwC)[:, inside_hw].mean(1)
            for pixels_BHWC in (searched_BHWC, pictures_BHWC)
        )
        clear = float(((own_B >= 1 - _PART) | (own_B <= _PART)).mean())
        carries_B: Flags = pictures_B >= 1 / 2
        return carries_B if clear >= _MIN_CLEAR else None

    def _shares(self, chosen_hw: Flags) -> Numbers:
        """Return the share of the pixels of each cell that are chosen, (u, v)."""
        rows, columns = map(_cells, self.size)
        counts_uv, pixels_uv = np.zeros((GRID, GRID)), np.zeros((GRID, GRID))
        np.add.at(counts_uv, (rows[:, None], columns[None, :]), chosen_hw)
        np.add.at(pixels_uv, (rows[:, None], columns[None, :]), 1)
        shares_uv: Numbers = counts_uv / np.maximum(pixels_uv, 1)
        return shares_uv


def shared_pixels(class_BHWC: FloatArray, other_BHWC: FloatArray) -> Shared:
    """Find the pixels that at least MIN_CARRIERS of the images of a class share, and far fewer of other classes.

    Args:
        class_BHWC: images of the class of the half that is searched, in [0, 1].
        other_BHWC: images of other classes of this half, in [0, 1].
    """
    own_BhwC, others_BhwC = _read(class_BHWC), _read(other_BHWC)
    value_hwC = _commonest(own_BhwC)
    own_hw, others_hw = (_agree(pixels, value_hwC).mean(0) for pixels in (own_BhwC, others_BhwC))
    shared_hw: Flags = (own_hw >= MIN_CARRIERS) & (others_hw <= MAX_IN_OTHERS * own_hw)
    return Shared(class_BHWC.shape[1:3], value_hwC, shared_hw)


def _commonest(pixels_BhwC: FloatArray) -> FloatArray:
    """Return the middle of the shortest interval that holds MIN_CARRIERS of the values of each pixel and channel."""
    count = max(2, int(np.ceil(MIN_CARRIERS * len(pixels_BhwC))))
    sorted_BhwC = np.sort(pixels_BhwC, axis=0)
    lengths_KhwC = sorted_BhwC[count - 1 :] - sorted_BhwC[: len(sorted_BhwC) - count + 1]
    first_1hwC = lengths_KhwC.argmin(0)[None]
    middle_hwC: FloatArray = np.take_along_axis(sorted_BhwC, first_1hwC + count // 2, axis=0)[0]
    return middle_hwC


def _agree(pixels_BhwC: FloatArray, value_hwC: FloatArray) -> Flags:
    """Tell where images have a value in every channel, (B, h, w)."""
    agree_Bhw: Flags = (np.abs(pixels_BhwC - value_hwC) <= _TOLERANCE).all(-1)
    return agree_Bhw


def _read(pictures_BHWC: FloatArray) -> FloatArray:
    """Take evenly spaced pixels of images: a stripe is as constant in some of its pixels as in all."""
    height, width = pictures_BHWC.shape[1:3]
    return pictures_BHWC[:, :: _step(height), :: _step(width)]


def _cells(side: int) -> npt.NDArray[np.int64]:
    """Return the cell of each pixel that is read along a side."""
    return np.arange(0, side, _step(side)) * GRID // side


def _step(side: int) -> int:
    return max(1, side // (GRID * _POINTS))
