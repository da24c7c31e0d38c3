"""Checks the boxes that a notebook gives to `evaluate`, image by image.

Legend: n boxes of one image.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.explain.given_truth import Size

_FORMATS = ("XYXY", "XYWH", "CXCYWH")
"""The formats of torchvision's boxes whose sides are those of the image."""


def checked_boxes(
    boxes: Sequence[Sequence[Sequence[float]] | Tensor | None] | None, images: int, size: Size
) -> list[Tensor | None]:
    """Return the boxes of each image that overlap it, (n, 4) as (x0, y0, x1, y1) in pixels; warn if none of all does.

    Raises:
        ValueError: there are boxes of more or fewer images; a box is malformed, or of an image of another size; or all
            boxes lie within the first pixel.
    """
    given = [None] * images if boxes is None else list(boxes)
    if len(given) != images:
        raise ValueError(f"{len(given)} lists of boxes for {images} images")
    whole = [None if of_image is None else _rows(of_image, size, image) for image, of_image in enumerate(given)]
    inside = [None if boxes_n4 is None else boxes_n4[_overlap(boxes_n4, size)] for boxes_n4 in whole]
    count = sum(len(boxes_n4) for boxes_n4 in whole if boxes_n4 is not None)
    kept_n4 = torch.cat([torch.zeros(0, 4, dtype=torch.float64), *(one for one in inside if one is not None)])
    _check_shares(kept_n4, size)
    if count and not len(kept_n4):
        which = (
            "the only box lies outside of its image" if count == 1 else f"all {count} boxes lie outside of their images"
        )
        warnings.warn(
            f"{which}, so that metrics of boxes are NaN: boxes are (x0, y0, x1, y1) in pixels of the model's input, "
            f"{_wide(size)}; are these in pixels of the original image, or are x and y swapped?",
            stacklevel=3,
        )
    return inside


def _rows(boxes: Sequence[Sequence[float]] | Tensor, size: Size, image: int) -> Tensor:
    """Return the boxes of one image, (n, 4) as (x0, y0, x1, y1); raise ValueError if one is malformed."""
    corners = _in_corners(boxes, size, image)
    try:
        boxes_n4 = torch.as_tensor(corners, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(_malformed(boxes)) from None
    if boxes_n4.numel() == 0:
        return boxes_n4.reshape(0, 4)
    if boxes_n4.ndim != 2 or boxes_n4.shape[1] != 4 or not bool(boxes_n4.isfinite().all()):
        raise ValueError(_malformed(boxes))
    if bool((boxes_n4[:, :2] > boxes_n4[:, 2:]).any()):
        raise ValueError(f"a box must have x0 <= x1 and y0 <= y1, not {boxes!r}")
    return boxes_n4


def _malformed(boxes: object) -> str:
    return f"boxes must be rows of four finite numbers (x0, y0, x1, y1), not {boxes!r}"


def _in_corners(boxes: Sequence[Sequence[float]] | Tensor, size: Size, image: int) -> object:
    """Return the boxes as given, or, of torchvision's boxes, which say their format and image size, as corners."""
    if not isinstance(boxes, Tensor) or type(boxes) is Tensor:
        return boxes
    from torchvision.transforms.v2.functional import convert_bounding_box_format  # imported here, because it is slow
    from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

    if not isinstance(boxes, BoundingBoxes):
        return boxes
    if boxes.format.name not in _FORMATS:
        raise ValueError(
            f"the boxes of image {image} have the format {boxes.format.name}, whose boxes may be rotated; metrics read "
            f"upright boxes: give one of {', '.join(_FORMATS)}, or a mask"
        )
    if tuple(boxes.canvas_size) != size:
        raise ValueError(
            f"the boxes of image {image} are those of an image of another size, {_wide(tuple(boxes.canvas_size))} by "
            f"their canvas_size, but the model's input is {_wide(size)}: resize and crop them with the image"
        )
    plain_n4 = boxes.as_subclass(Tensor).double()  # halves of whole numbers would be rounded
    return convert_bounding_box_format(plain_n4, old_format=boxes.format, new_format=BoundingBoxFormat.XYXY)


def _overlap(boxes_n4: Tensor, size: Size) -> Tensor:
    height, width = size
    return (boxes_n4[:, :2] < torch.tensor([width, height])).all(1) & (boxes_n4[:, 2:] > 0).all(1)


def _check_shares(boxes_n4: Tensor, size: Size) -> None:
    """Raise ValueError if all boxes lie within the first pixel, as shares of the image do."""
    if not len(boxes_n4) or not bool(((boxes_n4 >= 0) & (boxes_n4 <= 1)).all()):
        return
    which = "the only box lies" if len(boxes_n4) == 1 else f"all {len(boxes_n4)} boxes lie"
    raise ValueError(
        f"{which} within the first pixel, so they may be shares of the image, but boxes are in pixels of the model's "
        f"input: multiply x by its width, {size[1]}, and y by its height, {size[0]}; for an object that does lie in "
        "the first pixel, give its mask"
    )


def _wide(size: Size) -> str:
    return f"{size[1]} pixels wide and {size[0]} high"
