"""Plain photographs, baseline JPEGs of usual size, from their bytes to the model's input: the header is read once.

They are the vast majority, and the code of libjpeg-turbo for them is small, so they are decoded in the reading process.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from pipeline.data.colour import Coding, converted
from pipeline.data.framing import Framed, fitted, fitted_pixels
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources.box_formats import in_pixels
from pipeline.data.sources.shards import Boxes
from pipeline.settings.preprocess import Preprocess

_PLAIN_PIXELS = 16_000_000
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class PlainHeader:
    """What the header of a plain photograph says.

    Attributes:
        width, height: in pixels, as stored.
        is_grey: it has one channel, else three.
        orientation: of EXIF, 1 to 8.
    """

    width: int
    height: int
    is_grey: bool
    orientation: int


def plain_header(data: bytes) -> PlainHeader | None:
    """Read the header of a baseline JPEG of usual size; None for all other bytes."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            warnings.simplefilter("ignore")
            usual = image.width * image.height <= _PLAIN_PIXELS
            if not usual or image.mode not in ("L", "RGB") or image.info.get("progressive"):
                return None
            return PlainHeader(image.width, image.height, image.mode == "L", orientation_of(image))
    except Exception:  # Pillow's parsers raise almost any type of exception on hostile bytes
        return None


def frame_plain(
    data: bytes, header: PlainHeader, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits
) -> Framed | None:
    """Decode a plain photograph and fit it to the model's input size.

    Returns:
        None if the limits forbid it, or libjpeg-turbo cannot decode it: the usual way then says why.
    """
    if "JPEG" not in limits.formats or header.width * header.height > limits.max_pixels:
        return None
    pixels_HWC = decoded_jpeg(data, grey=preprocess.channels == 1 and header.is_grey)
    if pixels_HWC is None or pixels_HWC.shape[:2] != (header.height, header.width):
        return None
    if limits.boxes_relative:
        boxes = in_pixels(boxes, header.width, header.height)
    if header.orientation == 1 and pixels_HWC.shape[2] == preprocess.channels:
        return fitted_pixels(pixels_HWC, boxes, preprocess)
    image = converted(image_of(pixels_HWC), Coding(), preprocess.channels, limits.window)[0]
    return fitted((image,), boxes, preprocess, header.orientation)


def decoded_jpeg(data: bytes, *, grey: bool) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG to 1 or 3 channels (H, W, C); None if libjpeg-turbo cannot."""
    try:
        pixels_HWC: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB")
    except (ValueError, RuntimeError):
        return None
    return pixels_HWC


def image_of(pixels_HWC: npt.NDArray[np.uint8]) -> Image.Image:
    """Return pixels of 1 or 3 channels as an image."""
    return Image.fromarray(pixels_HWC[:, :, 0] if pixels_HWC.shape[2] == 1 else pixels_HWC)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation; damaged EXIF counts as upright, as in image viewers."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # hostile EXIF raises any type of exception
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
