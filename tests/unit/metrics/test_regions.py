"""The regions above all thresholds are those of labelling the map at each of them; hits are those of distances."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import ndimage

from pipeline.maps.heatmaps import min_max, upsample
from pipeline.metrics.boxes import best_iou, regions_boxes
from pipeline.metrics.localisation import _is_near
from pipeline.metrics.regions import LEVELS, regions_above

BOXES = np.array([[3, 5, 20, 24], [30, 2, 38, 9]])
Map = npt.NDArray[np.float32]


def maps() -> Iterator[Map]:
    """Smooth maps of several grids, with and without zeros, noise, and maps with many equal pixels."""
    random = torch.Generator().manual_seed(0)
    for grid in (2, 5, 11):
        for low in (0.0, 0.4):
            cells_11uv = (torch.rand(1, 1, grid, grid, generator=random) - low).relu()
            yield min_max(upsample(cells_11uv, (33, 41)))[0, 0].numpy()
    noise_HW = torch.rand(33, 41, generator=random)
    yield noise_HW.numpy()
    for values in (1, 3):
        yield ((noise_HW * (values + 1)).floor() / values).clamp_max(1).numpy()
    yield from (np.zeros((33, 41), np.float32), np.ones((33, 41), np.float32))
    lines_HW = np.zeros((33, 41), np.float32)
    lines_HW[::2], lines_HW[4, :], lines_HW[1::4, 7] = 0.5, 1.0, 0.25
    yield lines_HW


@pytest.mark.parametrize("which", ["largest", "all"])
@pytest.mark.parametrize("map_HW", list(maps()))
def test_overlaps_are_those_of_labelling_every_threshold(map_HW: Map, which: str) -> None:
    small_HW = np.floor(map_HW * 255).astype(np.uint8)
    labelled = [regions_boxes(small_HW > level, which) for level in range(LEVELS)]  # type: ignore[arg-type]
    regions = regions_above(map_HW)
    found = regions.largest() if which == "largest" else regions
    for boxes_n4 in (BOXES, BOXES[:1], BOXES[:0]):
        assert found.best_iou(boxes_n4).tolist() == [best_iou(region_n4, boxes_n4) for region_n4 in labelled]


def test_of_equal_regions_the_first_in_raster_order_is_the_largest() -> None:
    map_HW = np.zeros((9, 9), np.float32)
    map_HW[6, 0:2], map_HW[1, 6:8], map_HW[7, 7:9] = 0.9, 0.5, 1.0
    found = regions_above(map_HW).largest()
    assert [(int(found.x0[0, t]), int(found.y0[0, t])) for t in (0, 127, 200, 240)] == [(6, 1), (0, 6), (0, 6), (7, 7)]


@pytest.mark.parametrize("tolerance", [0, 1, 2, 4, 15, 1000])
def test_hits_are_those_of_distances(tolerance: int) -> None:
    random = torch.Generator().manual_seed(1)
    inside_BHW = torch.rand(5, 19, 27, generator=random) < 0.004
    inside_BHW[3], inside_BHW[4] = False, True
    places_BM = torch.arange(19 * 27).expand(5, -1)
    reach = max(tolerance, 1)
    for inside_HW, found_M in zip(inside_BHW, _is_near(inside_BHW, places_BM, tolerance), strict=True):
        near_HW = (ndimage.distance_transform_edt(~inside_HW.numpy()) < reach) & bool(inside_HW.any())
        assert found_M.tolist() == near_HW.ravel().tolist()
