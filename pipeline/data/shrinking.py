"""Shrinks photographs with vector instructions, and only what the crop keeps of them (`data.resizer: simd`).

Pillow resizes the whole image, value by value, before it is cropped. Here the rows and columns outside the crop are
never computed. Both passes are convolutions with the same triangle filter as Pillow's, in the same order and rounded to
whole levels after each. The weights have 16 bits instead of 32, so a value may differ by one level; in photographs
about one in 500 does. The library computes with whole numbers: the result is the same with any vector instructions,
and without them.

Only images that shrink at their own aspect, of sides up to 1 : 2, by the bilinear filter, are resized so. Pillow swaps
its two passes for some other images, which changes many values, and a cubic filter overshoots, which can make two
levels of one. Reductions such as 5/4 are left to Pillow, too: of their values, many lie exactly between two levels.

The library, cykooz-resizer, comes with the extra `simd`.

Legend: (H, W) pixels of the image, C channels.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.settings.preprocess import Preprocess, Size

if TYPE_CHECKING:
    import cykooz_resizer

_LONGEST_RATIO = 2
"""Largest ratio of the sides of a photograph."""
_MOST_TIES = 0.01
_LARGE_REDUCTION = 128
"""Reductions by p/q with a larger p have too few ties to count."""


def check_resizer(resizer: str) -> None:
    """Raise ConfigError if the library of a resizer is not installed."""
    if resizer != "simd":
        return
    try:
        import cykooz_resizer  # noqa: F401
    except ImportError:
        raise ConfigError.one(
            "data.resizer", "simd needs cykooz-resizer", "run pip install 'camatlas[simd]', or leave the key out"
        ) from None


def is_shrunk(width: int, height: int, new: tuple[int, int], preprocess: Preprocess) -> bool:
    """Tell whether an image that is to be resized to `new` (width, height) is a photograph that `shrunk` resizes."""
    crop_height, crop_width = preprocess.size
    return (
        preprocess.shrinks
        and crop_width <= new[0] <= width
        and crop_height <= new[1] <= height
        and max(width, height) <= _LONGEST_RATIO * min(width, height)
        and _ties(width, new[0]) + _ties(height, new[1]) <= _MOST_TIES
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
    pixels_HWC: npt.NDArray[np.uint8], new: tuple[int, int], corner: tuple[int, int], crop: Size
) -> npt.NDArray[np.uint8]:
    """Return the crop (height, width) at `corner` (x, y) of the image resized to `new` (width, height).

    Args:
        pixels_HWC: of 1 or 3 channels.
        new: not larger than the image.
        corner: not negative; the crop lies within `new`.
        crop: the size of the result.
    """
    import cykooz_resizer as simd

    height, width, channels = pixels_HWC.shape
    left, top = corner
    across, down = width / new[0], height / new[1]
    reach = down + 1
    first = max(math.floor(top * down - reach), 0)
    last = min(math.ceil((top + crop[0]) * down + reach), height)
    kind = {1: simd.PixelType.U8, 3: simd.PixelType.U8x3}[channels]
    kept = simd.ImageData(width, last - first, kind, pixels_HWC[first:last].tobytes())
    narrow, small = simd.ImageData(crop[1], last - first, kind), simd.ImageData(crop[1], crop[0], kind)
    _resize(kept, narrow, (left * across, 0), (crop[1] * across, height))
    _resize(narrow, small, (0, top * down - first), (crop[1], crop[0] * down))
    return np.frombuffer(small.get_buffer(), np.uint8).reshape(*crop, channels)


def _resize(
    image: "cykooz_resizer.ImageData",
    found: "cykooz_resizer.ImageData",
    corner: tuple[float, float],
    extent: tuple[float, float],
) -> None:
    """Resize the part of `extent` (width, height) at `corner` (x, y) to the size of `found`."""
    import cykooz_resizer as simd

    x, y = corner
    part = simd.CropBox(x, y, min(extent[0], image.width - x), min(extent[1], image.height - y))  # despite rounding
    way = simd.ResizeAlg.convolution(simd.FilterType.bilinear)
    simd.Resizer().resize(image, found, simd.ResizeOptions(way, use_alpha=False, crop_box=part))
