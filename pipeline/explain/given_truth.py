"""Checks the masks and parts that a notebook gives to `evaluate`, image by image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.data.sources.part_values import MOST_PARTS
from pipeline.metrics import Parts

Size = tuple[int, int]
"""(height, width) in pixels."""


def checked_masks(masks: Sequence[Tensor | None] | None, images: int, size: Size) -> Sequence[Tensor | None]:
    """Return the mask of each image; raise ValueError if one does not fit it."""
    by_image = [None] * images if masks is None else list(masks)
    if len(by_image) != images:
        raise ValueError(f"{len(by_image)} masks for {images} images")
    for mask in by_image:
        if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            raise ValueError(f"a mask must be a bool tensor (H, W), not {getattr(mask, 'dtype', type(mask).__name__)}")
        if mask is not None and tuple(mask.shape) != size:
            raise ValueError(f"a mask has the size of the images {size}, not {tuple(mask.shape)}")
    return by_image


def checked_parts(
    parts: Sequence[Parts | None] | None, images: int, size: Size, classes: int
) -> Sequence[Parts | None]:
    """Return the parts of each image; raise ValueError if some do not fit it, or the model."""
    by_image = [None] * images if parts is None else list(parts)
    if len(by_image) != images:
        raise ValueError(f"parts of {len(by_image)} images for {images} images")
    for one in by_image:
        if one is not None and not isinstance(one, Parts):
            raise ValueError(f"parts of an image are camatlas.Parts or None, not {type(one).__name__}")
    return [None if one is None else _checked(one, size, classes) for one in by_image]


def _checked(parts: Parts, size: Size, classes: int) -> Parts:
    values_P = _values(parts.values_P)
    _check_index(parts.index_HW, len(values_P), size)
    if isinstance(parts.target, bool) or not isinstance(parts.target, int) or not 0 <= parts.target < classes:
        raise ValueError(f"the target of parts is a class from 0 to {classes - 1}, not {parts.target!r}")
    return Parts(parts.index_HW, values_P, parts.target)


def _values(values: object) -> Tensor:
    try:
        values_P = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"the values of parts are finite numbers, one for each part, not {values!r}") from None
    if values_P.ndim != 1 or not len(values_P) or not bool(values_P.isfinite().all()):
        raise ValueError(f"the values of parts are finite numbers, one for each part, not {values!r}")
    if len(values_P) > MOST_PARTS:
        raise ValueError(f"{len(values_P)} values of parts; an image has at most {MOST_PARTS} parts")
    return values_P


def _check_index(index_HW: Tensor, parts: int, size: Size) -> None:
    """Raise ValueError unless a mask has the size of the images, and pixels of exactly these parts."""
    whole = isinstance(index_HW, Tensor) and not (
        index_HW.is_floating_point() or index_HW.is_complex() or index_HW.dtype == torch.bool
    )
    if not whole:
        found = getattr(index_HW, "dtype", type(index_HW).__name__)
        raise ValueError(f"the mask of parts must be a tensor of integers (H, W), not {found}")
    if tuple(index_HW.shape) != size:
        raise ValueError(f"the mask of parts has the size of the images {size}, not {tuple(index_HW.shape)}")
    low, high = int(index_HW.min()), int(index_HW.max())
    if low < 0 or high != parts:
        raise ValueError(f"{parts} values of parts, but their mask has the indices from {low} to {high}")
    missing = sorted(set(range(1, parts + 1)) - set(index_HW.flatten().tolist()))
    if missing:
        raise ValueError(f"part {missing[0]} has no pixel in the mask of parts")
