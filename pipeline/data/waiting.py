"""Leaves plain photographs encoded, so that the device that explains them decodes and frames them.

All other images, and those of long sides, of other channels or of filters that do not grow, become pixels here as ever:
in the sandbox, unless they are plain. What decides is the image and the run file, never the machine.
"""

from dataclasses import replace

import numpy as np

from pipeline.data.decode import Frame
from pipeline.data.framing import Framed, PixelArray, PlainJpeg, place_of, upright_boxes, with_boxes
from pipeline.data.limits import DecodeLimits
from pipeline.data.part_masks import PartMask
from pipeline.data.plain import PlainHeader, plain_header
from pipeline.data.sources.box_formats import in_pixels
from pipeline.data.sources.shards import Boxes
from pipeline.settings.preprocess import Preprocess

_LONGEST_RATIO = 8
_COLOURS = 3


def waiting(frame: Frame) -> Frame:
    """Return a function that leaves plain photographs to the device, and gives all other images to `frame`."""

    def framed(
        data: bytes, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits, mask: PartMask | None = None
    ) -> Framed:
        header = plain_header(data) if mask is None else None
        if header is not None and _suits(header, preprocess, limits):
            return _left(data, header, boxes, preprocess, limits)
        found = frame(data, boxes, preprocess, limits, mask)
        return replace(found, pixels_HWC=found.pixels_HWC[:0, :0], waiting=found.pixels_HWC)

    return framed


def _suits(header: PlainHeader, preprocess: Preprocess, limits: DecodeLimits) -> bool:
    """Tell whether the device decodes an image: the limits allow it, and the device has its filter."""
    allowed = "JPEG" in limits.formats and header.width * header.height <= limits.max_pixels
    new = place_of(header.width, header.height, preprocess).new
    filtered = preprocess.antialias and preprocess.interpolation != "nearest"
    return allowed and filtered and preprocess.channels == _COLOURS and max(new) <= _LONGEST_RATIO * min(new)


def _left(
    data: bytes, header: PlainHeader, boxes: Boxes | None, preprocess: Preprocess, limits: DecodeLimits
) -> Framed:
    width, height = header.width, header.height
    if limits.boxes_relative:
        boxes = in_pixels(boxes, width, height)
    turned = None if boxes is None else upright_boxes(boxes, header.orientation, width, height)
    size = (width, height) if header.orientation >= 5 else (height, width)
    framed = with_boxes(_nothing(preprocess), turned, size, preprocess)
    return replace(framed, waiting=PlainJpeg(data, header.orientation))


def _nothing(preprocess: Preprocess) -> PixelArray:
    return np.empty((0, 0, preprocess.channels), np.uint8)
