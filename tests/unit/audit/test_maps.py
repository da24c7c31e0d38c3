"""Maps on one grid: agreement and means against slow reference implementations."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from handmade import RunMaker

from pipeline.audit.maps import GRID, Maps, load_maps
from pipeline.audit.values import load_values
from pipeline.maps.heatmaps import heatmaps
from pipeline.results.query import open_run


def random_maps(images: int, methods: int) -> Maps:
    random = np.random.default_rng(0)
    return Maps({f"m{i}": random.integers(0, 256, (images, GRID, GRID)).astype(np.uint8) for i in range(methods)})


def test_agreement_is_the_mean_correlation_of_all_pairs_of_methods() -> None:
    maps = random_maps(5, 4)
    wanted = [
        np.mean([np.corrcoef(one[i].ravel(), other[i].ravel())[0, 1] for one, other in
                 itertools.combinations(maps.by_method.values(), 2)])
        for i in range(5)
    ]  # fmt: skip
    assert maps.agreement() == pytest.approx(wanted, abs=1e-4)


def test_agreement_leaves_out_constant_maps() -> None:
    maps = random_maps(2, 3)
    maps.by_method["m0"][0] = 0
    maps.by_method["m1"][1] = maps.by_method["m2"][1] = 0
    pair = [maps.by_method[name][0].ravel() for name in ("m1", "m2")]
    found = maps.agreement()
    assert found[0] == pytest.approx(np.corrcoef(*pair)[0, 1], abs=1e-4)
    assert np.isnan(found[1])


def test_means_of_groups() -> None:
    maps = random_maps(6, 1)
    maps.by_method["m0"][5] = 0
    found = maps.means("m0", np.array([0, 0, 1, 1, 1, 1]))
    assert found[0] == pytest.approx(maps.by_method["m0"][:2].mean(0) / 255, abs=1e-6)
    assert found[1] == pytest.approx(maps.by_method["m0"][2:5].mean(0) / 255, abs=1e-6)


def test_maps_of_a_run_are_in_the_order_of_its_values(tmp_path: Path) -> None:
    import torch

    with open_run(RunMaker(tmp_path / "run").complete().folder) as run:
        values = load_values(run)
        maps = load_maps(run, values.places)
        raw = run.maps("method = 'gradcam' AND shard = 'a.tar' AND image_key = '0-0-1'")
    assert values.places == [("a.tar", "0-0-0"), ("a.tar", "0-0-1"), ("a.tar", "0-1-0"), ("b.tar", "1-0-0")]
    wanted = heatmaps(torch.from_numpy(raw)[None], (GRID, GRID))[0, 0].numpy()
    assert maps.by_method["gradcam"][1] / 255 == pytest.approx(wanted, abs=1 / 500)
    assert not maps.by_method["scorecam"][2].any(), "this method failed on this image"


def test_values_of_a_run(tmp_path: Path) -> None:
    with open_run(RunMaker(tmp_path / "run").complete().folder) as run:
        values = load_values(run)
    assert values.labels_I.tolist() == [1, -1, 1, 1]
    assert values.classes_I.tolist() == [1, 1, 1, 1]
    assert values.correct_I[[0, 2, 3]].tolist() == [0, 0, 0]
    assert np.isnan(values.correct_I[1])
    assert values.metric("average_drop", "gradcam").tolist() == [0.25, 0.5, 0.25, 0.25]
    assert np.isnan(values.metric("average_drop", "scorecam")[2])
    assert values.metric("average_drop").tolist() == [0.375, 0.625, 0.25, 0.375]
