"""Clusters of maps: maps with two kinds of location give two clusters, one kind gives one."""

import numpy as np

from pipeline.audit.clusters import split, strategies
from pipeline.audit.maps import GRID, Maps
from pipeline.audit.values import Values


def blobs(random: np.random.Generator, centres: list[tuple[int, int]]) -> np.ndarray:
    """Make heat maps with one Gaussian spot each, near its centre."""
    rows, columns = np.mgrid[:GRID, :GRID]
    moved = np.array(centres) + random.normal(0, 0.4, (len(centres), 2))
    heat = [np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 6) for y, x in moved]
    return np.rint(255 * np.array(heat)).astype(np.uint8)


def values_of(images: int, wrong: list[int]) -> Values:
    index = np.arange(images)
    return Values(
        places=[("s", f"{i:03d}") for i in index], labels_I=index * 0, predicted_I=index * 0, classes_I=index * 0,
        confidences_I=np.full(images, 0.9), correct_I=np.where(np.isin(index, wrong), 0.0, 1.0),
        held_out_I=index % 2 == 0, sizes_I2=np.ones((images, 2)), columns={},
        sums_IK=np.zeros((images, 0), np.float32), counts_IK=np.zeros((images, 0), np.float32),
    )  # fmt: skip


def test_two_strategies_give_two_clusters_and_the_small_one_is_flagged() -> None:
    maps = Maps({"gradcam": blobs(np.random.default_rng(0), [(3, 3)] * 80 + [(11, 11)] * 20)})
    (found,) = strategies(values_of(100, list(range(80, 100))), maps, ["gradcam"], 0)
    large, small = found["clusters"]
    assert (large["images"], small["images"]) == (80, 20)
    assert (large["errors"], small["errors"]) == (0, 1)
    assert small["flagged"]
    assert not large["flagged"]
    assert found["stability"] > 0.9
    assert found["separation"] > 0.9
    assert {key for _, key in small["nearest"]} <= {f"{i:03d}" for i in range(80, 100)}
    peak = np.unravel_index(np.argmax(small["mean_map"]), (GRID, GRID))
    assert max(abs(peak[0] - 11), abs(peak[1] - 11)) <= 1


def test_one_strategy_is_one_cluster() -> None:
    cells_BP = blobs(np.random.default_rng(1), [(7, 7)] * 50).reshape(50, -1).astype(float)
    found = split(cells_BP / cells_BP.sum(1, keepdims=True), 0)
    assert found.labels_B.max() == 0


def test_small_classes_are_left_out() -> None:
    maps = Maps({"gradcam": blobs(np.random.default_rng(0), [(3, 3)] * 19)})
    assert strategies(values_of(19, []), maps, ["gradcam"], 0) == []
