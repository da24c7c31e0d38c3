"""JPEGs above the pixel bound: decoded at half or a quarter size on request, with their boxes."""

import io
from dataclasses import replace

import numpy as np
import pytest
from pictures import PRESET, difference, noise, saved
from PIL import Image

from pipeline.data.decode import frame_image
from pipeline.data.framing import fitted
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.settings.preprocess import Preprocess

BOX = (100.0, 40.0, 900.0, 560.0)


def limits(pixels: int) -> DecodeLimits:
    return DecodeLimits(max_pixels=pixels, too_large="scale")


@pytest.mark.parametrize(("pixels", "divisor"), [(300_000, 2), (100_000, 4)])
def test_a_large_jpeg_is_decoded_as_pillow_decodes_it_at_that_size(pixels: int, divisor: int) -> None:
    data = saved(noise(1201, 902), "JPEG")
    small = Image.open(io.BytesIO(data))
    small.draft("RGB", (1201 // divisor, 902 // divisor))
    assert small.size == (-(-1201 // divisor), -(-902 // divisor))
    preprocess = Preprocess(200, 220)
    framed = frame_image(data, (BOX,), preprocess, limits(pixels))
    assert difference(framed.pixels_HWC, fitted((small,), None, preprocess).pixels_HWC) == 0
    assert framed.size == (902, 1201)


def test_boxes_stay_where_they_are() -> None:
    data = saved(noise(1200, 900), "JPEG")
    whole = frame_image(data, (BOX,), PRESET, DecodeLimits())
    scaled = frame_image(data, (BOX,), PRESET, limits(300_000))
    assert whole.boxes_xyxy is not None
    assert np.allclose(whole.boxes_xyxy, scaled.boxes_xyxy or (), atol=1e-9)


def test_boxes_in_shares_are_those_of_the_whole_picture() -> None:
    data = saved(noise(1200, 900), "JPEG")
    shares = (100 / 1200, 40 / 900, 900 / 1200, 560 / 900)
    scaled = frame_image(data, (shares,), PRESET, replace(limits(300_000), boxes_relative=True))
    assert np.allclose(scaled.boxes_xyxy or (), frame_image(data, (BOX,), PRESET, DecodeLimits()).boxes_xyxy or ())


def test_the_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(noise(1200, 900), "JPEG", exif=exif.tobytes())
    framed = frame_image(data, (BOX,), PRESET, limits(300_000))
    whole = frame_image(data, (BOX,), PRESET, DecodeLimits())
    assert framed.size == whole.size == (1200, 900)
    assert np.allclose(framed.boxes_xyxy or (), whole.boxes_xyxy or (), atol=1e-9)


@pytest.mark.parametrize(("width", "height", "pixels"), [(3000, 3000, 400_000), (1200, 500, 300_000)])
def test_neither_more_than_the_bound_nor_less_than_the_input_is_decoded(width: int, height: int, pixels: int) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        frame_image(saved(noise(width, height), "JPEG"), None, PRESET, limits(pixels))
    assert caught.value.code == "too_large"


def test_other_images_are_as_without_the_setting() -> None:
    data = saved(noise(640, 480), "JPEG")
    expected = frame_image(data, None, PRESET, DecodeLimits()).pixels_HWC
    assert np.array_equal(frame_image(data, None, PRESET, limits(10**6)).pixels_HWC, expected)
    with pytest.raises(UnreadableImageError):
        frame_image(saved(noise(640, 480)), None, PRESET, limits(1000))
