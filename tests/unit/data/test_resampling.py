"""Resizing without antialiasing gives what torch's interpolation gives; inputs need not be square."""

import numpy as np
import pytest
import torch
from pictures import noise, pixels, saved
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from pipeline.data.framing import fitted, resized
from pipeline.settings.preprocess import Interpolation, Preprocess

SIZES = [(90, 60), (61, 97), (7, 200), (16, 16), (33, 8)]


def tensor(image: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].float()


def by_torch(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """Resize the shorter side and crop, or squash, as torchvision does on float tensors without antialiasing."""
    size = list(preprocess.size) if preprocess.resize is None else [preprocess.resize]
    mode = functional.InterpolationMode(preprocess.interpolation)
    large = functional.resize(tensor(image), size, mode, antialias=False)
    return functional.center_crop(large, list(preprocess.size))[0].permute(1, 2, 0).round().clamp(0, 255)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [None, 24])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_without_antialiasing_pixels_are_those_of_torch(
    width: int, height: int, resize: int | None, interpolation: Interpolation
) -> None:
    image, preprocess = noise(width, height), Preprocess((16, 24), resize, interpolation, antialias=False)
    found = torch.tensor(np.asarray(resized(image, preprocess)[0])).float()
    assert found.shape == (16, 24, 3)
    assert (found - by_torch(image, preprocess)).abs().max() <= 1


def test_antialiasing_makes_a_difference() -> None:
    smooth, sharp = (pixels(saved(noise(90, 60)), Preprocess(8, None, antialias=wanted)) for wanted in (True, False))
    assert smooth.std() < sharp.std() / 2


def test_nearest_reads_one_pixel_with_and_without_antialiasing() -> None:
    image = noise(50, 30)
    both = [resized(image, Preprocess(8, 8, "nearest", antialias=wanted)) for wanted in (True, False)]
    assert np.array_equal(np.asarray(both[0][0]), np.asarray(both[1][0]))
    assert both[0][1] == both[1][1]


# sides that differ


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", [None, 24])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_crop_of_two_sides_is_that_of_torchvision(
    width: int, height: int, resize: int | None, interpolation: Interpolation
) -> None:
    image, preprocess = noise(width, height), Preprocess((16, 24), resize, interpolation)
    size = list(preprocess.size) if resize is None else [resize]
    large = functional.resize(image, size, functional.InterpolationMode(interpolation))
    expected = np.asarray(functional.center_crop(large, [16, 24])).astype(int)
    found = np.asarray(resized(image, preprocess)[0]).astype(int)
    assert found.shape == (16, 24, 3)
    assert np.abs(found - expected).max() <= (1 if max(width, height) > 8 * min(width, height) else 0)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("resize", [None, 40])
@pytest.mark.parametrize("orientation", [1, 6])
def test_boxes_move_with_a_crop_of_two_sides(orientation: int, resize: int | None, antialias: bool) -> None:
    """Compare the box with the bright pixels that it surrounds."""
    values = np.zeros((60, 120), np.uint8)
    values[18:42, 50:80] = 255
    framed = fitted(
        (Image.fromarray(values),), ((50.0, 18.0, 80.0, 42.0),), Preprocess((30, 40), resize, antialias=antialias),
        orientation,
    )  # fmt: skip
    bright_HW = framed.pixels_HWC[:, :, 0] > 127
    rows, columns = np.flatnonzero(bright_HW.any(1)), np.flatnonzero(bright_HW.any(0))
    assert framed.boxes_xyxy is not None
    ((x0, y0, x1, y1),) = framed.boxes_xyxy
    assert np.abs([x0 - columns[0], y0 - rows[0], x1 - columns[-1] - 1, y1 - rows[-1] - 1]).max() <= 1
    assert framed.size == ((60, 120) if orientation == 1 else (120, 60))


def test_planes_are_resized_as_the_channels_of_one_image() -> None:
    """Channels of other than RGB images are resized one by one, to the same bits."""
    image, preprocess = noise(70, 50), Preprocess((16, 24), 30, "bicubic")
    together, apart = fitted((image,), None, preprocess), fitted(image.split(), None, preprocess)
    assert np.array_equal(together.pixels_HWC, apart.pixels_HWC)
