"""Resizes images without antialiasing: each pixel is read from its 2 or 4 nearest pixels per axis.

This is what tensors of torchvision (`antialias=False`) and OpenCV do. Pillow's filters always grow with the reduction.

Legend: (H, W) pixels of the image, C channels, P pixels of the crop along one axis, T taps: the pixels read per axis.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.settings.preprocess import Size

_CUBIC = -0.75
"""The parameter of the cubic kernel of torch and OpenCV; Pillow's is -0.5."""

Floats = npt.NDArray[np.float64]


def sampled(
    image: Image.Image,
    size: tuple[int, int],
    corner: tuple[int, int],
    crop: Size,
    interpolation: Literal["bilinear", "bicubic"],
) -> Image.Image:
    """Return the crop (height, width) at `corner` (x, y) of the image resized to `size` (width, height).

    Pixels of the crop outside the resized image are black.
    """
    rows_PT, down_PT = _taps(image.height, size[1], corner[1], crop[0], interpolation)
    columns_PT, across_PT = _taps(image.width, size[0], corner[0], crop[1], interpolation)
    values: npt.NDArray[Any] = np.asarray(image)
    grey = values.ndim == 2
    values_HWC = values[:, :, None] if grey else values
    small_HWC: Floats = np.zeros((*crop, values_HWC.shape[2]))
    for rows_P, down_P in zip(rows_PT.T, down_PT.T, strict=True):
        for columns_P, across_P in zip(columns_PT.T, across_PT.T, strict=True):
            weights_HW = down_P[:, None] * across_P
            small_HWC += weights_HW[:, :, None] * values_HWC[rows_P[:, None], columns_P]
    if values.dtype == np.uint8:
        small_HWC = np.clip(np.rint(small_HWC), 0, 255)
    return Image.fromarray((small_HWC[:, :, 0] if grey else small_HWC).astype(values.dtype))


def _taps(
    length: int, new_length: int, start: int, count: int, interpolation: Literal["bilinear", "bicubic"]
) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return which pixels to read for `count` new pixels from `start` on, and their weights, both (P, T)."""
    new_P = start + np.arange(count)
    at_P = (new_P + 0.5) * (length / new_length) - 0.5
    first_P = np.floor(at_P)
    t_P = at_P - first_P
    if interpolation == "bilinear":
        offsets_T, weights_PT = np.array([0, 1]), np.stack([1 - t_P, t_P], 1)
    else:
        offsets_T = np.array([-1, 0, 1, 2])
        weights_PT = np.stack([_far(1 + t_P), _near(t_P), _near(1 - t_P), _far(2 - t_P)], 1)
    inside_P = (new_P >= 0) & (new_P < new_length)
    indices_PT = np.clip(first_P[:, None].astype(np.intp) + offsets_T, 0, length - 1)
    return indices_PT, weights_PT * inside_P[:, None]


def _near(x_P: Floats) -> Floats:
    """Return the cubic kernel for distances up to 1."""
    return ((_CUBIC + 2) * x_P - (_CUBIC + 3)) * x_P**2 + 1


def _far(x_P: Floats) -> Floats:
    """Return the cubic kernel for distances from 1 to 2."""
    return ((x_P - 5) * x_P + 8) * _CUBIC * x_P - 4 * _CUBIC
