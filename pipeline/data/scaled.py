"""Decodes JPEGs above the pixel bound at half or a quarter of their size, which libjpeg does while it decodes."""

import math
from dataclasses import replace

import simplejpeg
from PIL import Image

from pipeline.data.framing import Framed, fitted
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.part_masks import PartMask, index_image
from pipeline.data.sources.box_formats import in_pixels
from pipeline.data.sources.shards import Boxes
from pipeline.settings.preprocess import Preprocess

_DIVISORS = (2, 4)
_EXIF = b"Exif\0\0"
_APP1, _SCAN = 0xE1, 0xDA
_ORIENTATION = 0x0112


def frame_scaled(
    data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits, mask: PartMask | None = None
) -> Framed | None:
    """Decode and frame a JPEG above the pixel bound; None for any other image.

    Raises:
        UnreadableImageError: code `too_large`, if a quarter is above the bound or below the model's input;
            `corrupt`, if it cannot be decoded; `parts`, as `index_image`.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except (ValueError, RuntimeError):
        return None
    if height * width <= limits.max_pixels or colours in ("CMYK", "YCCK"):
        return None
    small_height, small_width = _scaled_size(height, width, preprocess, limits)
    grey = preprocess.channels == 1
    try:
        pixels_HWC = simplejpeg.decode_jpeg(
            data, "GRAY" if grey else "RGB", min_height=small_height, min_width=small_width
        )
    except (ValueError, RuntimeError) as error:
        raise UnreadableImageError("corrupt", str(error)) from None
    image = Image.fromarray(pixels_HWC[:, :, 0] if grey else pixels_HWC)
    if limits.boxes_relative:
        boxes = in_pixels(boxes, width, height)
    across, down = image.width / width, image.height / height
    moved = (
        None if boxes is None else tuple((x0 * across, y0 * down, x1 * across, y1 * down) for x0, y0, x1, y1 in boxes)
    )
    orientation = _orientation(data)
    index = None if mask is None else index_image(mask, (width, height)).resize(image.size, Image.Resampling.NEAREST)
    framed = fitted((image,), moved, preprocess, orientation, index=index)
    return replace(framed, size=(width, height) if orientation >= 5 else (height, width))


def _scaled_size(height: int, width: int, preprocess: Preprocess, limits: DecodeLimits) -> tuple[int, int]:
    """Return (height, width) after the smallest division that fits the bound and is not below the model's input."""
    resize = preprocess.resize or preprocess.size
    least = max(resize) if isinstance(resize, tuple) else resize
    for divisor in _DIVISORS:
        small = math.ceil(height / divisor), math.ceil(width / divisor)
        if math.prod(small) <= limits.max_pixels and min(small) >= least:
            return small
    raise UnreadableImageError(
        "too_large",
        f"{width}x{height} exceeds the limit of {limits.max_pixels} pixels, and half or a quarter of it still does, or "
        f"is below {least} pixels",
    )


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG without Pillow's opening it, which refuses such large images."""
    start = 2
    while data[start : start + 1] == b"\xff" and data[start + 1] != _SCAN:
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        segment = data[start + 4 : start + 2 + length]
        if data[start + 1] == _APP1 and segment.startswith(_EXIF):
            return _orientation_in(segment)
        start += 2 + max(length, 2)
    return 1


def _orientation_in(segment: bytes) -> int:
    try:
        exif = Image.Exif()
        exif.load(segment)
        value = exif.get(_ORIENTATION, 1)
    except Exception:  # hostile EXIF raises any type of exception
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
