"""Framing: exactly torchvision's pixels, and long images without huge intermediate images."""

import random
from typing import Any

import numpy as np
import pytest
from pictures import PRESET, difference, noise, pixels, saved
from PIL import Image
from torchvision.models import ResNet50_Weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from pipeline.data.framing import PixelArray, resized
from pipeline.settings.preprocess import Interpolation, Preprocess

# parity with torchvision

RANDOM = random.Random(7)
SIZES = [(RANDOM.randint(1, 400), RANDOM.randint(1, 400)) for _ in range(24)]
SIZES = [(w, h) for w, h in SIZES if max(w, h) <= 8 * min(w, h)]
SIZES += [(256, 256), (224, 224), (1, 1), (8, 1), (1, 8), (255, 257), (300, 2400), (1000, 125), (640, 480)]


def torchvision_preset(image: Image.Image, interpolation: Interpolation) -> PixelArray:
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms(
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation=InterpolationMode(interpolation)
    )
    values: PixelArray = preset(image).mul(255).round().byte().permute(1, 2, 0).numpy()
    return values


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pixels_equal_those_of_torchvisions_preset(width: int, height: int, interpolation: Interpolation) -> None:
    image = noise(width, height)
    got = pixels(saved(image), Preprocess(224, 256, interpolation))
    assert np.array_equal(got, torchvision_preset(image, interpolation))


@pytest.mark.parametrize(("crop", "resize"), [(224, 224), (224, 225), (40, 35), (41, 36), (36, 33), (16, 100)])
@pytest.mark.parametrize(("width", "height"), [(50, 50), (31, 97), (97, 31)])
def test_any_crop_equals_torchvisions(crop: int, resize: int, width: int, height: int) -> None:
    """Include crops larger than the resized image, which are padded with black."""
    image = noise(width, height)
    expected = tv.center_crop(tv.resize(image, [resize], antialias=True), [crop])
    assert np.array_equal(pixels(saved(image), Preprocess(crop, resize)), np.asarray(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_squash_scales_both_sides_to_the_crop(interpolation: Interpolation) -> None:
    image = noise(90, 31)
    expected = image.resize((64, 64), getattr(Image.Resampling, interpolation.upper()))
    assert np.array_equal(pixels(saved(image), Preprocess(64, None, interpolation)), np.asarray(expected))


# long images


def by_full_resize(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    mode = InterpolationMode(preprocess.interpolation)
    small = tv.resize(image, [preprocess.resize], interpolation=mode, antialias=True)
    return tv.center_crop(small, [preprocess.crop])


LONG = [(1, 200), (200, 1), (3, 100), (7, 64), (90, 9), (33, 700), (700, 33), (300, 3000), (3001, 299), (10, 81)]


@pytest.mark.parametrize(("width", "height"), LONG)
@pytest.mark.parametrize(("crop", "resize"), [(224, 256), (24, 35), (40, 32)])
def test_long_images_differ_from_a_full_resize_by_at_most_one_level(
    width: int, height: int, crop: int, resize: int
) -> None:
    image, preprocess = noise(width, height), Preprocess(crop, resize)
    assert difference(resized(image, preprocess)[0], by_full_resize(image, preprocess)) <= 1


@pytest.mark.parametrize(("width", "height"), LONG)
def test_long_images_stay_close_under_bicubic_too(width: int, height: int) -> None:
    """Use smooth values: bicubic overshoot on noise is clipped, so the order of Pillow's passes would matter."""
    rows, columns = np.mgrid[0:height, 0:width]
    values = np.stack(
        [rows * 200 // height, columns * 200 // width, (rows + columns) * 200 // (width + height)], axis=2
    )
    image, preprocess = Image.fromarray(values.astype(np.uint8) + 20), Preprocess(224, 256, "bicubic")
    assert difference(resized(image, preprocess)[0], by_full_resize(image, preprocess)) <= 1


@pytest.mark.parametrize(("width", "height"), [(1, 20_000), (20_000, 1), (12, 20_000)])
@pytest.mark.parametrize("resize", [200, 256])
def test_long_images_create_no_huge_intermediate_image(
    width: int, height: int, resize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = Image.Image.resize

    def watched(image: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        sizes.append(size[0] * size[1])
        return original(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert pixels(saved(noise(width, height)), Preprocess(224, resize)).shape == (224, 224, 3)
    assert sizes
    assert max(sizes) <= 224 * 300


def black_above_grey(height: int) -> Image.Image:
    image = Image.new("RGB", (1, height))
    image.paste((200, 200, 200), (0, height // 2, 1, height))
    return image


def test_an_extremely_long_image_is_cropped_at_the_right_position() -> None:
    """Use more than 2**23 rows, because float32 cannot represent neighbouring rows there."""
    far, near = (resized(black_above_grey(height), PRESET)[0] for height in (18_000_000, 2_000))
    assert np.array_equal(np.asarray(far), np.asarray(near))
    assert len(np.unique(np.asarray(far))) > 100
