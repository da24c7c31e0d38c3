"""Turns what a user's decoder returns into pixels: arrays of any number of channels, of any depth, with their range.

A decoder is a function from the bytes of an image to an array (H, W, C) or (H, W), or to a pair of the array and the
range (low, high) of its values. Without a range, uint8 spans 0 to 255. Deeper values are read by `data.window`: uint16
spans 0 to 65535 by default, and other types need a range or a window. The pixels are float32 in [0, 1].
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.colour import unit_values, window_of
from pipeline.data.framing import Framed, PixelArray, fitted
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.part_masks import PartMask
from pipeline.data.sources.box_formats import in_pixels
from pipeline.data.sources.shards import Boxes
from pipeline.errors import first_line
from pipeline.settings.preprocess import Preprocess

Decoder = Callable[[bytes], object]
Values = npt.NDArray[Any]

ERROR = "decoder_error"
"""Failure code of images that the decoder cannot decode, or decodes to something that is not an image."""
_TOLERANCE = 1e-5
"""How far values may lie outside their range, as a share of it: rounding of a decoder that scales them."""


def frame_decoded(
    decoder: Decoder,
    data: bytes,
    boxes: Boxes | None,
    preprocess: Preprocess,
    limits: DecodeLimits,
    mask: PartMask | None = None,
) -> Framed:
    """Decode one image with a user's decoder and fit it to the model's input size.

    Raises:
        UnreadableImageError: code `decoder_error` (the decoder raises, or returns no image of the model's channels),
            `memory`, `too_large` (more than `max_pixels`), `mode` (values without a range), or `parts` (there is a mask
            of parts, which only image files may have).
    """
    if mask is not None:
        raise UnreadableImageError("parts", "parts belong to image files; a decoder (data.decoder) has none")
    try:
        returned = decoder(data)
    except MemoryError:
        raise UnreadableImageError("memory", "decoding needs more memory than is available") from None
    except (Exception, SystemExit) as error:  # a user's function raises anything
        raise UnreadableImageError(ERROR, first_line(error)) from None
    array, window = _parts(returned)
    values_HWC = _image(array, preprocess.channels)
    height, width, _ = values_HWC.shape
    if height * width > limits.max_pixels:
        raise UnreadableImageError("too_large", f"{width}x{height} exceeds the limit of {limits.max_pixels} pixels")
    planes, peak = _planes(values_HWC, window, limits)
    if limits.boxes_relative:
        boxes = in_pixels(boxes, width, height)
    framed = fitted(planes, boxes, preprocess, peak=peak)
    return Framed(in_unit_range(framed.pixels_HWC), framed.boxes_xyxy, framed.size, framed.box_indices, peak)


def in_unit_range(pixels_HWC: PixelArray) -> npt.NDArray[np.float32]:
    """Convert pixels to float32 in [0, 1]; bicubic interpolation of floats may have left it."""
    if pixels_HWC.dtype == np.uint8:
        return pixels_HWC.astype(np.float32) / np.float32(255)
    return np.clip(pixels_HWC, 0, 1).astype(np.float32)


def _parts(returned: object) -> tuple[Values, tuple[float, float] | None]:
    """Split what a decoder returned into the array and the range of its values, if it states one."""
    array, stated = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(array, np.ndarray):
        raise UnreadableImageError(ERROR, f"the decoder returned {_described(returned)}, not a numpy array")
    if isinstance(array, np.ma.MaskedArray):
        raise UnreadableImageError(ERROR, "the decoder returned a masked array; fill the masked values")
    if stated is None:
        return array, None
    try:
        low, high = map(float, stated)
    except (TypeError, ValueError):
        raise UnreadableImageError(ERROR, f"the range {_short(stated)} is not a pair (low, high)") from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UnreadableImageError(ERROR, f"the range ({low:g}, {high:g}) is not two finite numbers, low < high")
    return array, (low, high)


def _image(array: Values, channels: int) -> Values:
    """Return an array as (H, W, C), in the byte order of this machine.

    Raises:
        UnreadableImageError: it is not an image, or not one of this number of channels.
    """
    if array.dtype.kind not in "uif":
        raise UnreadableImageError(ERROR, f"the decoder returned values of type {array.dtype}, not numbers")
    if array.ndim not in (2, 3) or not array.size:
        raise UnreadableImageError(ERROR, f"the decoder returned shape {array.shape}, not (H, W, C) or (H, W)")
    values_HWC = array[:, :, None] if array.ndim == 2 else array
    found = values_HWC.shape[2]
    if found != channels:
        last = "; channels come last: (H, W, C)" if values_HWC.shape[0] == channels else ""
        raise UnreadableImageError(
            ERROR,
            f"the decoder returned shape {array.shape}, so {found} channels, but model.preprocess.channels is "
            f"{channels}{last}",
        )
    return np.ascontiguousarray(values_HWC, array.dtype.newbyteorder("="))


def _planes(
    values_HWC: Values, stated: tuple[float, float] | None, limits: DecodeLimits
) -> tuple[list[Image.Image], int | None]:
    """Return the channels as images that Pillow can resize, 8-bit or float in [0, 1]; and the peak, as in `Framed`."""
    peak: int | None = None
    if values_HWC.dtype == np.uint8 and stated is None:
        return _split(values_HWC), None
    if stated is not None:
        _check_range(values_HWC, stated)
        window = stated
    elif limits.window != "dtype":
        window = window_of(values_HWC, limits.window)
    elif values_HWC.dtype == np.uint16:
        window, peak = (0.0, 65535.0), int(values_HWC.max())
    else:
        raise UnreadableImageError(
            ERROR, f"values of type {values_HWC.dtype} have no defined range; return (array, (low, high))"
        )
    return _split(unit_values(values_HWC, window).astype(np.float32)), peak


def _split(values_HWC: Values) -> list[Image.Image]:
    return [Image.fromarray(np.ascontiguousarray(plane_HW)) for plane_HW in np.moveaxis(values_HWC, 2, 0)]


def _check_range(values: Values, stated: tuple[float, float]) -> None:
    if not np.isfinite(values).all():
        raise UnreadableImageError(ERROR, "the decoder returned NaN or infinity")
    low, high = float(values.min()), float(values.max())
    margin = _TOLERANCE * (stated[1] - stated[0])
    if low < stated[0] - margin or high > stated[1] + margin:
        raise UnreadableImageError(
            ERROR,
            f"the decoder returned values from {low:g} to {high:g}, but states the range ({stated[0]:g}, "
            f"{stated[1]:g}); clip them to it, or state another one",
        )


def _described(returned: object) -> str:
    return "None" if returned is None else f"{type(returned).__name__} {_short(returned)}"


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
