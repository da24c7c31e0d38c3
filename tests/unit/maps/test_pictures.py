"""Pictures of images of any number of channels."""

import numpy as np
import pytest

from pipeline.maps.pictures import as_picture, at_least, boxed, overlay, picture_note, unit_range


def image(channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(10, 100, (6, 9, channels), dtype=np.uint8)


def test_three_channels_are_shown_as_they_are() -> None:
    assert np.array_equal(np.asarray(as_picture(image(3))), image(3))
    assert np.array_equal(np.asarray(as_picture(image(3) / np.float32(255))), image(3))


def test_one_channel_is_grey() -> None:
    picture = as_picture(image(1))
    assert picture.mode == "RGB", "so that boxes and maps on it are coloured"
    assert np.array_equal(np.asarray(picture), np.repeat(image(1), 3, axis=2))


@pytest.mark.parametrize("channels", [4, 6, 12])
def test_of_other_channels_the_first_three_are_scaled(channels: int) -> None:
    shown = np.asarray(as_picture(image(channels)))
    for channel in range(3):
        own = image(channels)[:, :, channel].astype(float)
        assert np.array_equal(shown[:, :, channel], np.rint(255 * (own - own.min()) / np.ptp(own)))
    assert picture_note(channels) == f"channels 1 to 3 of {channels}, each scaled"


def test_of_two_channels_the_first_is_scaled_grey() -> None:
    shown = np.asarray(as_picture(image(2)))
    assert (shown.min(), shown.max()) == (0, 255)
    assert (shown == shown[:, :, :1]).all()
    assert picture_note(2) == "channel 1 of 2, scaled"


def test_a_constant_channel_is_black() -> None:
    assert not np.asarray(as_picture(np.full((4, 5, 6), 0.7, np.float32))).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_as_they_are_have_no_note(channels: int) -> None:
    assert picture_note(channels) == ""


def test_boxes_and_maps_are_drawn_in_colour_on_a_grey_picture() -> None:
    grey = as_picture(np.full((40, 80, 1), 128, np.uint8))
    large, boxes = at_least(grey, 160, ((10, 5, 30, 20),))
    assert (large.size, boxes) == ((160, 80), ((20, 10, 60, 40),))
    assert boxed(large, boxes).getpixel((20, 20)) == (255, 45, 120)
    shown = np.asarray(overlay(large, np.eye(4, 8, dtype=np.float32)))
    assert shown.shape == (80, 160, 3)
    assert (shown.max(2) > shown.min(2)).mean() > 0.9


def test_pixels_in_the_unit_range_are_those_of_the_model() -> None:
    assert np.array_equal(unit_range(image(6)), image(6).astype(np.float32) / np.float32(255))
    floats = np.random.default_rng(0).random((3, 4, 2), np.float32)
    assert np.array_equal(unit_range(floats), floats)
