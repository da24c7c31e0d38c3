"""Shrinks photographs with vector instructions, and only what the crop keeps of them.

Pillow resizes the whole image, value by value, before it is cropped. Here the rows and columns outside the crop are
never computed. Both passes are convolutions with the same triangle or cubic filter as Pillow's, in the same order and
rounded to whole levels after each. For the triangle their weights have 16 bits instead of 32, so a value may differ by
one level; in photographs about one in 500 does. A cubic filter overshoots, which could make two levels of one, so its
weights have 32 bits; about one value in 40,000 differs, and of 77 million values one did by two levels. The library
computes with whole numbers: the result is the same with any vector instructions, and without them.

Only images that shrink at their own aspect, of sides up to 1 : 2, are resized so. Pillow swaps its two passes for some
other images, which changes many values. Reductions such as 5/4 are left to Pillow, too: of their values, many lie
exactly between two levels.

Legend: (H, W) pixels of the image, C channels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import cykooz_resizer as simd
import numpy as np
import numpy.typing as npt

from pipeline.settings.preprocess import Interpolation, Preprocess, Size

_LONGEST_RATIO = 2
"""Largest ratio of the sides of a photograph."""
_MOST = 255
_MOST_TIES = 0.01
_LARGE_REDUCTION = 128
"""Reductions by p/q with a larger p have too few ties to count."""


@dataclass(frozen=True)
class _Filter:
    """How one interpolation is computed.

    Attributes:
        way: the library's name of it.
        reach: the support of its kernel, in pixels of the result.
        kind: the type of the values, which decides how precise the weights are; uint8 is clipped by the library itself.
        types: the library's name of that type, by the number of channels.
    """

    way: simd.ResizeAlg
    reach: int
    kind: type[np.uint8 | np.uint16]
    types: Mapping[int, simd.PixelType]

    def image(self, pixels_HWC: npt.NDArray[np.uint8]) -> simd.ImageData:
        """Copy pixels of 1 or 3 channels."""
        height, width, channels = pixels_HWC.shape
        return simd.ImageData(width, height, self.types[channels], pixels_HWC.astype(self.kind, copy=False).tobytes())

    def empty(self, height: int, width: int, channels: int) -> simd.ImageData:
        """Make room for a result."""
        return simd.ImageData(width, height, self.types[channels])

    def fill(
        self, found: simd.ImageData, image: simd.ImageData, corner: Sequence[float], extent: Sequence[float]
    ) -> None:
        """Resize the part of `extent` (width, height) at `corner` (x, y) to the size of `found`."""
        x, y = corner
        part = simd.CropBox(x, y, min(extent[0], image.width - x), min(extent[1], image.height - y))  # despite rounding
        simd.Resizer().resize(image, found, simd.ResizeOptions(self.way, use_alpha=False, crop_box=part))

    def values(self, image: simd.ImageData, channels: int) -> npt.NDArray[np.uint8]:
        """Return the pixels; as in Pillow, those beyond 0 and 255 are clipped after each pass."""
        values_HWC = np.frombuffer(image.get_buffer(), self.kind).reshape(image.height, image.width, channels)
        clipped_HWC: npt.NDArray[np.uint8] = np.minimum(values_HWC, _MOST).astype(np.uint8, copy=False)
        return clipped_HWC


_FILTERS = {
    "bilinear": _Filter(
        simd.ResizeAlg.convolution(simd.FilterType.bilinear), 1, np.uint8,
        {1: simd.PixelType.U8, 3: simd.PixelType.U8x3},
    ),
    "bicubic": _Filter(
        simd.ResizeAlg.convolution(simd.FilterType.catmull_rom), 2, np.uint16,
        {1: simd.PixelType.U16, 3: simd.PixelType.U16x3},
    ),
}  # fmt: skip


def is_shrunk(width: int, height: int, new: tuple[int, int], preprocess: Preprocess) -> bool:
    """Tell whether an image that is to be resized to `new` (width, height) is a photograph that `shrunk` resizes."""
    crop_height, crop_width = preprocess.size
    return (
        preprocess.shrinks
        and crop_width <= new[0] <= width
        and crop_height <= new[1] <= height
        and max(width, height) <= _LONGEST_RATIO * min(width, height)
        and (preprocess.interpolation != "bilinear" or _ties(width, new[0]) + _ties(height, new[1]) <= _MOST_TIES)
    )


@lru_cache(maxsize=4096)
def _ties(length: int, new: int) -> float:
    """Estimate how often a value of one pass lies exactly between two levels, so that its weights' last bit decides.

    The weights of a tap at distance d are in proportion to 2p - |2q d|, for a reduction of p/q in lowest terms. Their
    sum D, in lowest terms, is the denominator of the values: one in D is a tie if D is even. If D is a power of two,
    the weights are exact, and both libraries round the tie alike.
    """
    reduction = Fraction(length, new)
    p, q = reduction.numerator, reduction.denominator
    if p > _LARGE_REDUCTION:
        return 0.0
    found = 0.0
    for phase in range(q):
        centre = (2 * phase + 1) * p
        taps = range((centre - 2 * p) // (2 * q) - 1, (centre + 2 * p) // (2 * q) + 2)
        weights = [weight for tap in taps if (weight := 2 * p - abs((2 * tap + 1) * q - centre)) > 0]
        total = sum(weights) // math.gcd(*weights)
        found += 1 / total if total % 2 == 0 and total & (total - 1) else 0.0
    return found / q


def shrunk(
    pixels_HWC: npt.NDArray[np.uint8],
    new: tuple[int, int],
    corner: tuple[int, int],
    crop: Size,
    interpolation: Interpolation,
) -> npt.NDArray[np.uint8]:
    """Return the crop (height, width) at `corner` (x, y) of the image resized to `new` (width, height).

    Args:
        pixels_HWC: of 1 or 3 channels.
        new: not larger than the image.
        corner: not negative; the crop lies within `new`.
        crop: the size of the result.
        interpolation: `bilinear` or `bicubic`.
    """
    height, width, channels = pixels_HWC.shape
    left, top = corner
    across, down = width / new[0], height / new[1]
    filter_ = _FILTERS[interpolation]
    reach = filter_.reach * down + 1
    first = max(math.floor(top * down - reach), 0)
    last = min(math.ceil((top + crop[0]) * down + reach), height)
    kept, narrow = filter_.image(pixels_HWC[first:last]), filter_.empty(last - first, crop[1], channels)
    filter_.fill(narrow, kept, (left * across, 0), (crop[1] * across, height))
    if filter_.kind is not np.uint8:
        narrow = filter_.image(filter_.values(narrow, channels))
    small = filter_.empty(*crop, channels)
    filter_.fill(small, narrow, (0, top * down - first), (crop[1], crop[0] * down))
    return filter_.values(small, channels)
