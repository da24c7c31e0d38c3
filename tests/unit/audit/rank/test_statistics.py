"""Ranks, Kendall's W and tau against literal versions, SciPy, and examples by hand."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, kendalltau

from pipeline.audit.rank.statistics import kendalls_tau, kendalls_w, ranks_of

NAN = float("nan")


def literal_w(ranks: Sequence[Sequence[float]]) -> float:
    """The formula, term by term."""
    judges, methods = len(ranks), len(ranks[0])
    sums = [sum(judge[i] for judge in ranks) for i in range(methods)]
    deviation = sum((total - sum(sums) / methods) ** 2 for total in sums)
    ties = 0
    for judge in ranks:
        for value in set(judge):
            size = judge.count(value)
            ties += size**3 - size
    return 12 * deviation / (judges**2 * (methods**3 - methods) - judges * ties)


def random_ranks(judges: int, methods: int, seed: int) -> np.ndarray:
    """Ranks with ties."""
    return ranks_of(np.random.default_rng(seed).integers(0, 5, (judges, methods)).astype(float), "lower")


@pytest.mark.parametrize("seed", range(5))
def test_w_is_its_formula_and_that_of_friedman(seed: int) -> None:
    ranks_JN = random_ranks(4, 6, seed)
    w = kendalls_w(ranks_JN)
    assert w == pytest.approx(literal_w(ranks_JN.tolist()), abs=1e-12)
    assert w == pytest.approx(friedmanchisquare(*ranks_JN.T).statistic / (4 * 5), abs=1e-12)


def test_w_by_hand() -> None:
    same = np.array([[1.0, 2, 3], [1, 2, 3]])
    assert kendalls_w(same) == 1
    assert kendalls_w(np.array([[1.0, 2, 3], [3, 2, 1]])) == 0
    assert kendalls_w(np.array([[1.5, 1.5, 3], [1.5, 1.5, 3]])) == 1  # without the correction it would be 0.75
    assert kendalls_w(np.array([[1.0, 2, 3, 4], [2, 1, 3, 4], [1, 2, 4, 3]])) == pytest.approx(0.8222, abs=1e-4)


def test_judges_that_rank_by_chance_reach_one_over_their_number() -> None:
    random = np.random.default_rng(0)
    found = [kendalls_w(np.stack([1.0 + random.permutation(8) for _ in range(5)])) for _ in range(2000)]
    assert np.mean([w for w in found if w is not None]) == pytest.approx(1 / 5, abs=0.01)


@pytest.mark.parametrize("ranks", [np.ones((1, 4)), np.ones((3, 1)), np.full((3, 4), 2.5), np.empty((2, 0))])
def test_w_does_not_exist_without_judges_methods_or_differences(ranks: np.ndarray) -> None:
    assert kendalls_w(ranks) is None


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_that_of_scipy(seed: int) -> None:
    one_JN, other_JN = random_ranks(3, 7, seed), random_ranks(3, 7, seed + 100)
    expected = [kendalltau(one, other).statistic for one, other in zip(one_JN, other_JN, strict=True)]
    assert kendalls_tau(one_JN, other_JN) == pytest.approx(expected, abs=1e-12)


def test_tau_is_unknown_without_differences() -> None:
    assert np.isnan(kendalls_tau(np.full(4, 2.5), np.arange(4.0)))


def test_ranks_by_hand() -> None:
    assert ranks_of(np.array([0.1, 0.3, 0.2]), "higher").tolist() == [3, 1, 2]
    assert ranks_of(np.array([0.1, 0.3, 0.2]), "lower").tolist() == [1, 3, 2]
    assert ranks_of(np.array([-5.0, -5.0, 2.0, 9.0]), "lower").tolist() == [1.5, 1.5, 3, 4]
    assert ranks_of(np.zeros(3), "higher").tolist() == [2, 2, 2]


def test_a_missing_mean_leaves_the_whole_order_unknown() -> None:
    found = ranks_of(np.array([[1.0, NAN], [1.0, 2.0]]), "lower")
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [1, 2]


def test_means_that_differ_by_rounding_alone_are_tied() -> None:
    third = np.float32(1 / 3)
    assert ranks_of(np.array([third, np.nextafter(third, np.float32(1))], np.float64), "higher").tolist() == [1.5, 1.5]
    assert ranks_of(np.array([third, third * 1.0001], np.float64), "higher").tolist() == [2, 1]


def test_every_order_has_the_same_sum_of_ranks() -> None:
    for values in itertools.product((0.0, 1.0, 2.0), repeat=4):
        assert ranks_of(np.array(values), "higher").sum() == 10
