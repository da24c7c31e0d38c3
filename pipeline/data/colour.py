"""Converts decoded images to the channels of the model: grey (1) or RGB (3), of 8 bits each.

Grey is repeated over the channels of RGB, and RGB becomes grey by its luma (0.299 R + 0.587 G + 0.114 B), as in Pillow.
Palettes are looked up. What is transparent shows white, or black, or its own colour. CMYK is converted by Pillow.
Values of more than 8 bits become 8 by the window of the run.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.limits import UnreadableImageError
from pipeline.settings.data import Alpha, Window

_MODES = {1: "L", 3: "RGB"}
_MOST_16_BIT = (1 << 16) - 1


@dataclass(frozen=True)
class Coding:
    """How a file stores its values.

    Attributes:
        bits: of one value. Pillow itself reduces 16-bit colours to their high byte.
        rescaled: whether the reader stretched the values to 16 bits, by the range that the file declares.
    """

    bits: int = 8
    rescaled: bool = False


def converted(
    image: Image.Image, coding: Coding, channels: int, window: Window, alpha: Alpha = "white"
) -> tuple[Image.Image, int | None]:
    """Convert a loaded image to `channels` channels (1 or 3) of 8 bits.

    Returns:
        The image, and its largest value if it has more than 8 bits and keeps the high byte, else None.

    Raises:
        UnreadableImageError: code `mode`, if the values have no defined range, or the window does not apply to them.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(image, coding, channels, window)
    if coding.bits <= 8:
        return _eight_bit(image, channels, alpha), None
    if window != "dtype":
        raise UnreadableImageError(
            "mode", "only the high byte of 16-bit colours is read here; use data.window: dtype, or data.decoder"
        )
    peak = max(high for band, (_, high) in zip(image.getbands(), _extrema(image), strict=True) if band != "A")
    return _eight_bit(image, channels, alpha), peak << 8 | 0xFF


def _from_deep_grey(
    image: Image.Image, coding: Coding, channels: int, window: Window
) -> tuple[Image.Image, int | None]:
    values_HW = np.asarray(image)
    if window == "dtype":
        return Image.fromarray(_high_byte(values_HW)).convert(_MODES[channels]), int(values_HW.max())
    if coding.rescaled and not isinstance(window, str):
        raise UnreadableImageError(
            "mode", f"this {image.format} is read in 16 bits by its own range; use data.window: dtype or image"
        )
    unit_HW = unit_values(values_HW, window_of(values_HW, window))
    return Image.fromarray(np.rint(255 * unit_HW).astype(np.uint8)).convert(_MODES[channels]), None


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """Return the smallest and largest value of each band."""
    return [band.getextrema() for band in image.split()]  # type: ignore[misc]  # a pair, because each has one band


def _high_byte(values_HW: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if values_HW.dtype.kind == "f":
        raise UnreadableImageError("mode", "32-bit float pixels have no defined range; set data.window")
    low, high = int(values_HW.min()), int(values_HW.max())
    if low < 0 or high > _MOST_16_BIT:
        raise UnreadableImageError("mode", f"values from {low} to {high} do not fit 16 bits; set data.window")
    return (values_HW.astype(np.int64) >> 8).astype(np.uint8)


def window_of(values: npt.NDArray[Any], window: Window) -> tuple[float, float]:
    """Return (low, high) of a window other than `dtype`: the stated one, or the range of the values.

    Raises:
        UnreadableImageError: code `mode`, if the values contain NaN or infinity.
    """
    if not np.isfinite(values).all():
        raise UnreadableImageError("mode", "the values contain NaN or infinity")
    return (float(values.min()), float(values.max())) if isinstance(window, str) else window


def unit_values(values: npt.NDArray[Any], window: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Scale values so that `window` becomes [0, 1], clipped; a window without extent gives zeros."""
    low, high = window
    if not low < high:
        return np.zeros(values.shape)
    return np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)


def _eight_bit(image: Image.Image, channels: int, alpha: Alpha) -> Image.Image:
    if channels == 1:
        return image if image.mode == "L" and "transparency" not in image.info else to_rgb(image, alpha).convert("L")
    return to_rgb(image, alpha)


def to_rgb(image: Image.Image, alpha: Alpha = "white") -> Image.Image:
    """Convert an image with 8 bits per value to RGB; what is transparent shows the colour `alpha`, or its own."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        if alpha == "drop":
            return coloured.convert("RGB")
        return Image.alpha_composite(Image.new("RGBA", image.size, alpha), coloured).convert("RGB")
    return image.convert("RGB")
