"""Framing: rotates an image upright, fits it to the model's input size, and moves its boxes and parts accordingly."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.data.resampling import sampled
from pipeline.data.shrinking import is_shrunk, shrunk
from pipeline.data.sources.shards import Box, Boxes
from pipeline.settings.preprocess import Preprocess, Size

PixelArray = npt.NDArray[Any]
"""Pixels: uint8 in 0 to 255, or float32 in [0, 1]."""

_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_LONGEST_RATIO = 8
"""Images with a larger aspect ratio are cropped while they are resized, which avoids a huge intermediate image."""


@dataclass(frozen=True)
class Framed:
    """One image at the model's input size: pixels (H, W, C), boxes, and (height, width) before resizing.

    Boxes outside the crop are dropped. `box_indices` are the indices of the remaining boxes among those given. `peak`
    is the largest value of an image of more than 8 bits whose range is that of its type, else None. `index_HW` is the
    index of the part at each pixel, uint8, 0 for the background; None without parts. `waiting` is what the device that
    explains makes the pixels of, see `pipeline.data.waiting`; `pixels_HWC` is then empty.
    """

    pixels_HWC: PixelArray
    boxes_xyxy: Boxes | None
    size: Size
    box_indices: tuple[int, ...] = ()
    peak: int | None = None
    index_HW: PixelArray | None = None
    waiting: "PlainJpeg | PixelArray | None" = None


@dataclass(frozen=True)
class PlainJpeg:
    """The bytes of a plain photograph that is not decoded yet, and its EXIF orientation, 1 to 8."""

    data: bytes
    orientation: int


def fitted(
    planes: Sequence[Image.Image],
    boxes: Boxes | None,
    preprocess: Preprocess,
    orientation: int = 1,
    peak: int | None = None,
    index: Image.Image | None = None,
) -> Framed:
    """Fit an image to the model's input size; `planes` are its channels, or one image that holds all of them.

    `index` is the image of the indices of its parts, of the same size.
    """
    width, height = planes[0].size
    small = [np.asarray(resized(upright(plane, orientation), preprocess)[0]) for plane in planes]
    turned = upright_boxes(boxes or (), orientation, width, height)
    size = (width, height) if orientation >= 5 else (height, width)
    index_HW = None if index is None else _nearest(upright(index, orientation), preprocess)
    framed = with_boxes(np.dstack(small), None if boxes is None else turned, size, preprocess)
    return replace(framed, peak=peak, index_HW=index_HW)


def fitted_pixels(pixels_HWC: PixelArray, boxes: Boxes | None, preprocess: Preprocess) -> Framed:
    """Fit an upright image of 1 or 3 channels of 8 bits; the same as `fitted`, with fewer copies."""
    height, width, channels = pixels_HWC.shape
    place = place_of(width, height, preprocess)
    if is_shrunk(width, height, place.new, preprocess):
        small_HWC = shrunk(pixels_HWC, place.new, place.corner, preprocess.size)
        return with_boxes(small_HWC, boxes, (height, width), preprocess)
    return fitted((Image.fromarray(pixels_HWC[:, :, 0] if channels == 1 else pixels_HWC),), boxes, preprocess)


def with_boxes(pixels_HWC: PixelArray, boxes: Boxes | None, size: Size, preprocess: Preprocess) -> Framed:
    """Add the boxes of an upright image of `size` (height, width), moved to the crop."""
    moved = moved_boxes(boxes or (), place_of(*size[::-1], preprocess).visible, preprocess.size)
    return Framed(pixels_HWC, None if boxes is None else tuple(moved.values()), size, tuple(moved))


def _nearest(index: Image.Image, preprocess: Preprocess) -> PixelArray:
    """Resize and crop an upright image of indices as the image itself, but without mixing them."""
    return np.asarray(resized(index, replace(preprocess, interpolation="nearest"))[0])


@dataclass(frozen=True)
class Place:
    """Where an upright image lies in the model's input.

    Attributes:
        new: (width, height) after it is resized.
        corner: (x, y) of the crop in it; negative where the crop is larger.
        visible: the region that is kept as (x0, y0, x1, y1), before resizing.
    """

    new: tuple[int, int]
    corner: tuple[int, int]
    visible: Box


def place_of(width: int, height: int, preprocess: Preprocess) -> Place:
    """Return where an image of this size lies in the model's input."""
    crop_height, crop_width = preprocess.size
    new = _new_size(preprocess, width, height)
    left, top = (_centred(*lengths, preprocess) for lengths in zip(new, (crop_width, crop_height), strict=True))
    scale_x, scale_y = width / new[0], height / new[1]
    visible = (left * scale_x, top * scale_y, (left + crop_width) * scale_x, (top + crop_height) * scale_y)
    if preprocess.resize is None:
        visible = (0.0, 0.0, float(width), float(height))
    return Place(new, (left, top), visible)


def resized(image: Image.Image, preprocess: Preprocess) -> tuple[Image.Image, Box]:
    """Resize and crop an upright image; also return its visible region as (x0, y0, x1, y1), before resizing."""
    place = place_of(*image.size, preprocess)
    return _resized(image, place, preprocess), place.visible


def _resized(image: Image.Image, place: Place, preprocess: Preprocess) -> Image.Image:
    new, (left, top) = place.new, place.corner
    if preprocess.interpolation != "nearest" and not preprocess.antialias:
        return sampled(image, new, place.corner, preprocess.size, preprocess.interpolation)
    if image.mode in ("L", "RGB") and is_shrunk(*image.size, new, preprocess):
        small_HWC = shrunk(np.atleast_3d(np.asarray(image)), new, place.corner, preprocess.size)
        return Image.fromarray(small_HWC[:, :, 0] if image.mode == "L" else small_HWC)
    resample = _RESAMPLE[preprocess.interpolation]
    if preprocess.resize is not None and max(new) > _LONGEST_RATIO * min(new):
        return _crop_of_resized(image, new, place.corner, preprocess.size, resample)
    crop_height, crop_width = preprocess.size
    return image.resize(new, resample).crop((left, top, left + crop_width, top + crop_height))


def _crop_of_resized(
    image: Image.Image, size: tuple[int, int], corner: tuple[int, int], crop: Size, resample: Image.Resampling
) -> Image.Image:
    """Resize to `size` and crop at `corner` without creating more than the crop; pad with black outside the image."""
    left, top = corner
    crop_height, crop_width = crop
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    x0, x1 = max(left, 0) * scale_x, min(left + crop_width, size[0]) * scale_x
    y0, y1 = max(top, 0) * scale_y, min(top + crop_height, size[1]) * scale_y
    reach = 2 * math.ceil(max(scale_x, scale_y, 1.0)) + 1  # support of the widest filter, bicubic, around the crop
    first_x, first_y = max(int(x0) - reach, 0), max(int(y0) - reach, 0)
    # Pillow stores the box as float32, which is precise enough only for small coordinates
    part = image.crop((first_x, first_y, min(int(x1) + reach, image.width), min(int(y1) + reach, image.height)))
    width, height = min(crop_width, size[0]), min(crop_height, size[1])
    # horizontal pass first, as Pillow does for most whole images; of a part it may resize the height first, which
    # rounds differently
    narrow = part.resize((width, part.height), resample, box=(x0 - first_x, 0, x1 - first_x, part.height))
    small = narrow.resize((width, height), resample, box=(0, y0 - first_y, width, y1 - first_y))
    whole = Image.new(image.mode, (crop_width, crop_height))
    whole.paste(small, (max(-left, 0), max(-top, 0)))
    return whole


_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate or flip a stored image upright, according to its EXIF orientation."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def upright_boxes(boxes: Boxes, orientation: int, width: int, height: int) -> Boxes:
    """Map boxes from the stored image (width x height) to the upright one, clipped to the image."""

    def corner(x: float, y: float) -> tuple[float, float]:
        x, y = min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height))
        if orientation in (2, 3, 7, 8):
            x = width - x
        if orientation in (3, 4, 6, 7):
            y = height - y
        return (y, x) if orientation >= 5 else (x, y)

    moved = [(corner(x0, y0), corner(x1, y1)) for x0, y0, x1, y1 in boxes]
    return tuple((min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])) for a, b in moved)


def moved_boxes(boxes: Boxes, visible: Box, size: Size) -> dict[int, Box]:
    """Map boxes of the upright image to the model's input, clipped to the crop.

    Returns:
        The boxes that are at least partly visible, by their index in `boxes`.
    """
    left, top, right, bottom = visible
    height, width = size

    def across(x: float) -> float:
        return min(max((x - left) / (right - left) * width, 0.0), float(width))

    def down(y: float) -> float:
        return min(max((y - top) / (bottom - top) * height, 0.0), float(height))

    moved = [(across(x0), down(y0), across(x1), down(y1)) for x0, y0, x1, y1 in boxes]
    return {index: box for index, box in enumerate(moved) if box[0] < box[2] and box[1] < box[3]}


def _new_size(preprocess: Preprocess, width: int, height: int) -> tuple[int, int]:
    """Return (width, height) of an image after it was resized, before it is cropped."""
    resize = preprocess.size if preprocess.resize is None else preprocess.resize
    return resize[::-1] if isinstance(resize, tuple) else _shorter_side_to(resize, width, height)


def _shorter_side_to(length: int, width: int, height: int) -> tuple[int, int]:
    if width <= height:
        return length, int(length * height / width)
    return int(length * width / height), length


def _centred(length: int, crop: int, preprocess: Preprocess) -> int:
    """Return where a centred crop starts; negative if the image is smaller than the crop."""
    if length < crop:
        return -((crop - length) // 2)
    return round((length - crop) / 2.0) if preprocess.crop_start == "nearest" else (length - crop) // 2
