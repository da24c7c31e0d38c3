"""Raw maps are upsampled and scaled to [0, 1], and a constant map becomes zero."""

import pytest
import torch
from torch import Tensor

from pipeline.maps.heatmaps import heatmaps, is_degenerate, min_max, upsample


def random_maps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_heat_map_reaches_from_zero_to_one() -> None:
    found_BMHW = heatmaps(random_maps(2, 3, 7, 7), (28, 20))
    assert found_BMHW.shape == (2, 3, 28, 20)
    assert torch.equal(found_BMHW.amin((-2, -1)), torch.zeros(2, 3))
    assert torch.equal(found_BMHW.amax((-2, -1)), torch.ones(2, 3))


def test_maps_are_upsampled_before_they_are_scaled() -> None:
    map_11uv = torch.tensor([[[[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 4.0, 0.0]]]])
    found = heatmaps(map_11uv, (5, 5))
    large = torch.nn.functional.interpolate(map_11uv, (5, 5), mode="bilinear", align_corners=False)
    assert torch.allclose(found, (large - large.min()) / (large.max() - large.min()))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, -1.7, 123.456])
@pytest.mark.parametrize("size", [(7, 7), (33, 50), (224, 224), (97, 225)])
def test_a_constant_map_is_all_zero_at_every_size(value: float, size: tuple[int, int]) -> None:
    """Upsampling a constant leaves rounding errors, which scaling must not amplify."""
    assert not heatmaps(torch.full((1, 1, 7, 7), value), size).any()


def test_a_constant_map_does_not_affect_other_maps() -> None:
    maps_1Muv = torch.stack([random_maps(7, 7), torch.full((7, 7), 0.1), random_maps(7, 7)])[None]
    found = heatmaps(maps_1Muv, (33, 50))
    assert not found[0, 1].any()
    assert torch.equal(found[:, ::2], heatmaps(maps_1Muv[:, ::2], (33, 50)))


def test_min_max_scales_each_map_by_itself() -> None:
    maps = torch.tensor([[[0.0, 2.0]], [[-4.0, -2.0]], [[5.0, 5.0]]])
    assert min_max(maps).tolist() == [[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 0.0]]]


def test_min_max_resolves_the_smallest_ranges() -> None:
    assert min_max(torch.tensor([[0.0, 2.0**-127, 2.0**-126]])).tolist() == [[0.0, 0.5, 1.0]]


def test_maps_of_the_right_size_are_unchanged() -> None:
    maps = random_maps(1, 2, 5, 6)
    assert upsample(maps, (5, 6)) is maps


def test_corners_are_aligned_only_on_request() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    assert upsample(maps, (3, 3), align_corners=True)[0, 0].tolist() == [
        [0.0, 0.5, 1.0],
        [1.0, 1.5, 2.0],
        [2.0, 2.5, 3.0],
    ]
    assert upsample(maps, (4, 4))[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_only_constant_maps_are_degenerate() -> None:
    maps = torch.stack([torch.zeros(3, 3), torch.full((3, 3), -2.5), random_maps(3, 3)])
    assert is_degenerate(maps).tolist() == [True, True, False]
