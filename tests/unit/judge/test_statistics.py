"""Statistics of the judge, against their definitions and with metrics whose worth is known."""

import itertools

import numpy as np
import pytest

from pipeline.judge.statistics import (
    agreement,
    gain,
    krippendorff_alpha,
    mean_interval,
    ranks,
    scenes_needed,
    share_above,
    spearman_by_scene,
)

RANDOM = np.random.default_rng(0)


def _tau_b(one: np.ndarray, other: np.ndarray) -> float:
    signs = [
        (np.sign(one[i] - one[j]), np.sign(other[i] - other[j])) for i, j in itertools.combinations(range(len(one)), 2)
    ]
    agree = sum(a * b for a, b in signs)
    return float(agree / np.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)))


def test_agreement_is_tau_b_of_each_scene_and_not_defined_for_a_constant_metric() -> None:
    values, truth = RANDOM.integers(0, 4, (5, 8)).astype(float), RANDOM.normal(size=(5, 8))
    np.testing.assert_allclose(agreement(values, truth), [_tau_b(*pair) for pair in zip(values, truth, strict=True)])
    assert np.isnan(agreement(np.ones((2, 8)), truth[:2])).all()
    values[0, :3] = np.nan
    assert agreement(values, truth)[0] == pytest.approx(_tau_b(values[0, 3:], truth[0, 3:]))


def test_a_random_metric_agrees_within_its_interval_of_0_and_the_truth_agrees_by_1() -> None:
    truth = RANDOM.normal(size=(200, 20))
    chance = mean_interval(agreement(RANDOM.normal(size=truth.shape), truth), seed=1)
    assert chance is not None
    assert chance["low"] < 0 < chance["high"]
    assert mean_interval(agreement(truth, truth), seed=1) == {
        "mean": pytest.approx(1), "low": pytest.approx(1), "high": pytest.approx(1), "scenes": 200
    }  # fmt: skip


def test_the_interval_covers_the_mean_and_depends_on_the_seed_alone() -> None:
    sample = RANDOM.normal(3, 1, 50)
    first, second = mean_interval(sample, seed=4), mean_interval(sample, seed=4)
    assert first == second
    assert first is not None
    half = 1.96 * sample.std() / np.sqrt(50)
    assert first["low"] == pytest.approx(sample.mean() - half, abs=0.05)
    assert mean_interval(np.array([np.nan]), seed=0) is None


def test_ties_count_half_and_missing_values_not() -> None:
    assert share_above(np.array([1.0, 2, 3, np.nan]), np.array([0.0, 2, 4, 0])) == 0.5
    assert share_above(np.array([np.nan]), np.array([0.0])) is None


def test_a_gain_is_measured_in_the_unit_and_a_metric_without_spread_has_none() -> None:
    assert gain(np.array([2.0, 0.0]), np.array([1.0, 1.0]), 0.5) == (0.5, 0.0)
    assert gain(np.array([3.0, 2.0]), np.array([1.0, 1.0]), 0.5) == (1.0, 3.0)
    assert gain(np.array([1.0]), np.array([1.0]), 0.0) is None


def test_a_metric_that_counts_pixels_follows_the_size() -> None:
    areas = np.arange(8.0)
    assert spearman_by_scene(np.stack([areas, -areas, np.ones(8)]), areas)[:2] == pytest.approx([1, -1])
    assert np.isnan(spearman_by_scene(np.ones((1, 8)), areas)).all()


def _alpha_by_pairs(ranking: np.ndarray) -> float:
    scenes, maps = ranking.shape
    observed = np.mean(
        [(ranking[a, m] - ranking[b, m]) ** 2 for m in range(maps) for a, b in itertools.permutations(range(scenes), 2)]
    )
    every = ranking.ravel()
    expected = np.mean([(every[i] - every[j]) ** 2 for i, j in itertools.permutations(range(len(every)), 2)])
    return float(1 - observed / expected)


def test_alpha_equals_its_definition_over_pairs() -> None:
    ranking = ranks(RANDOM.normal(size=(6, 5)) + 2 * np.arange(5))
    assert krippendorff_alpha(ranking) == pytest.approx(_alpha_by_pairs(ranking))
    assert krippendorff_alpha(np.tile(np.arange(5.0), (4, 1))) == 1
    assert krippendorff_alpha(ranking[:1]) is None


def test_the_best_has_rank_1_and_scenes_without_a_difference_are_left_out() -> None:
    values = np.array([[1.0, 3, 2], [1, 1, 1], [np.nan, 1, 2], [2, 2, 0]])
    assert ranks(values).tolist() == [[3, 1, 2], [1.5, 1.5, 3]]


def test_more_scenes_are_needed_where_ranks_spread() -> None:
    sure, unsure = np.tile([1.0, 2, 3], (10, 1)), ranks(RANDOM.normal(size=(100, 10)))
    assert scenes_needed(sure) == 2
    spread = unsure.std(0, ddof=1).max()
    assert scenes_needed(unsure) == int(np.ceil((1.96 * spread / 0.5) ** 2))
    assert scenes_needed(sure[:1]) is None
