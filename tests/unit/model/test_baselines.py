"""Pixels and baselines of any number of channels."""

import pytest
import torch

from pipeline.model.baselines import Normalisation, baseline_pixels, unit_pixels


def test_8_bit_pixels_and_floats_in_unit_range_are_the_same_input() -> None:
    pixels_BHWC = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    unit_BCHW = unit_pixels(pixels_BHWC)
    assert unit_BCHW.shape == (2, 5, 3, 4)
    assert torch.equal(unit_pixels(pixels_BHWC.float() / 255), unit_BCHW)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("kind", ["black", "mean", "blur", "rise_blur"])
def test_every_baseline_has_the_channels_of_the_image(kind: str, channels: int) -> None:
    normalisation = Normalisation((0.25,) * channels, (0.5,) * channels)
    pixels_BCHW = torch.rand(2, channels, 24, 40)
    found = baseline_pixels(kind, pixels_BCHW, normalisation)
    assert found.shape == pixels_BCHW.shape
    if kind == "black":
        assert torch.equal(found, torch.full_like(found, -0.5))
