"""Candidates of the judge: what each ruin and change does to a map."""

import numpy as np
import pytest

from pipeline.judge.candidates import CHANGES, RUINS, SIZES, random_regions, ruins, truth_map
from pipeline.truth.hand import closed_form, make_hand_scene
from pipeline.truth.shapley import PartValues
from pipeline.truth.shards import Known


def _known(rule: str) -> Known:
    scene = make_hand_scene(0, seed=2, rule=rule)
    values = np.array(closed_form(scene))
    return Known(scene, PartValues(values, values, scene.label, float(values.sum())))


def test_the_true_map_shows_parts_of_positive_value_and_nothing_else() -> None:
    known = _known("contrary")
    map_HW = truth_map(known)
    for part, value in zip(known.scene.parts, known.values.logit_P, strict=True):
        assert (map_HW[part.mask_HW] > 0).all() == (value > 0)
    assert map_HW[known.scene.index_HW == 0].max() == 0
    assert map_HW.max() == 1


def test_every_ruin_is_a_map_and_none_is_the_truth() -> None:
    known = _known("and")
    made = ruins(known, np.random.default_rng(0))
    assert tuple(made) == RUINS
    for name, map_HW in made.items():
        assert map_HW.shape == (96, 96)
        assert 0 <= map_HW.min() <= map_HW.max() <= 1 + 1e-12
        assert name == "truth" or not np.array_equal(map_HW, made["truth"])
    least = known.scene.parts[int(known.values.logit_P.argmin())]
    assert made["other_part"][least.mask_HW].mean() > 0.5
    assert not made["constant"].any()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_the_range_and_the_constant_map(name: str) -> None:
    map_HW = truth_map(_known("and"))
    changed = CHANGES[name](map_HW)
    assert 0 <= changed.min() <= changed.max() <= 1 + 1e-12
    assert not CHANGES[name](np.zeros((96, 96))).any()


def test_random_regions_rise_in_area() -> None:
    areas = [map_HW.mean() for map_HW in random_regions((96, 96), np.random.default_rng(0))]
    assert len(areas) == SIZES
    assert areas == sorted(areas)
    assert areas[0] == pytest.approx(0.05, abs=0.01)
    assert areas[-1] == pytest.approx(0.7, abs=0.01)
