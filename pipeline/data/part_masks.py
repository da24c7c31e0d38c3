"""Decodes masks of parts: PNG files whose pixels are the index of a part, or 0 for the background."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.data.limits import UnreadableImageError
from pipeline.data.sources.part_values import MOST_PARTS

_DEPTH, _COLOUR = 24, 25
"""Offsets of the bits per value and of the colour type in a PNG file."""
_GREY, _PALETTE = 0, 3


@dataclass(frozen=True)
class PartMask:
    """The encoded mask of an image's parts, and their number."""

    png: bytes
    parts: int


def index_image(mask: PartMask, size: tuple[int, int]) -> Image.Image:
    """Decode a mask to an image of indices, in mode L.

    Args:
        mask: the encoded mask.
        size: (width, height) of the image that it belongs to, as stored.

    Raises:
        UnreadableImageError: code `parts`, if it is no such mask, or is of another size or of other parts.
    """
    image = _decoded(mask.png, size)
    _check_indices(np.bincount(np.asarray(image).ravel(), minlength=mask.parts + 1).tolist(), mask.parts)
    return image


def _decoded(png: bytes, size: tuple[int, int]) -> Image.Image:
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            warnings.simplefilter("ignore")
            if image.size != size:
                found, wanted = (f"{width}x{height}" for width, height in (image.size, size))
                raise _bad(f"the mask of the parts has {found} pixels, and the image {wanted}")
            if (png[_COLOUR], png[_DEPTH]) != (_GREY, 8) and png[_COLOUR] != _PALETTE:
                raise _bad("the mask of the parts is not an 8-bit grey or palette image")
            return Image.fromarray(np.asarray(image))
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's parsers raise almost any type of exception on hostile bytes
        raise _bad(f"the mask of the parts cannot be decoded as PNG: {type(error).__name__}") from None


def _check_indices(pixels: list[int], parts: int) -> None:
    """Raise UnreadableImageError unless exactly the indices from 1 to the number of parts have pixels."""
    largest = max((index for index, count in enumerate(pixels) if count), default=0)
    if largest > MOST_PARTS:
        raise _bad(f"the mask of the parts has the index {largest}; an image has at most {MOST_PARTS} parts")
    if largest != parts:
        raise _bad(f"{parts} values of parts, but the largest index in their mask is {largest}")
    if empty := [index for index in range(1, parts + 1) if not pixels[index]]:
        raise _bad(f"part {empty[0]} has no pixel in the mask of the parts")


def _bad(detail: str) -> UnreadableImageError:
    return UnreadableImageError("parts", detail)
