"""Intervals that stay in their range, against SciPy and scikit-learn, and the answers that rest on them."""

import numpy as np
import pytest
from scipy.stats import ttest_ind
from sklearn.metrics import roc_auc_score

from pipeline.audit.follows import follows
from pipeline.audit.intervals import auc, correlation_interval, correlations, difference_of_means, side

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("mean", "half"), [(0.106, 2.920), (0.0, 0.1), (0.97, 0.01), (-0.9, 0.5), (0.999, 0.2), (1.0, 0.3), (-1.0, 5.0)]
)
def test_intervals_of_correlations_stay_in_their_range(mean: float, half: float) -> None:
    low, high = correlation_interval(mean, half)
    assert low is not None
    assert high is not None
    assert -1 <= low <= mean <= high <= 1


def test_a_narrow_interval_is_the_symmetric_one() -> None:
    assert correlation_interval(0.3, 0.01) == pytest.approx((0.29, 0.31), abs=1e-4)
    assert correlation_interval(0.5, 0.0) == (0.5, 0.5)
    assert correlation_interval(None, None) == correlation_interval(0.5, None) == (None, None)
    mean, low, high, count = correlations(np.array([0.2, 0.4, np.nan]))
    assert (mean, count) == (pytest.approx(0.3), 2)
    assert low is not None
    assert high is not None
    assert -1 <= low < 0 < 0.6 < high <= 1, "two values tell little"


def test_two_maps_never_decide() -> None:
    """A rank correlation of .106 ± 2.920 was a yes."""
    assert follows(*correlation_interval(0.106, 2.920), maps=2) == "undecided"
    assert follows(0.1, 0.1, maps=2) == follows(0.99, 0.99, maps=2) == "undecided", "even if both are alike"
    assert follows(None, None, maps=0) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.1, 0.749, "yes"), (-0.1, 0.75, "undecided"), (0.7, 0.8, "undecided"), (0.75, 0.9, "undecided"),
     (0.751, 0.9, "no")],
)  # fmt: skip
def test_the_whole_interval_decides(low: float, high: float, answer: str) -> None:
    assert follows(low, high, maps=16) == answer


def test_sides() -> None:
    assert [side(*ends, 0.5) for ends in ((0.6, 0.7), (0.1, 0.2), (0.4, 0.6), (None, 0.7))] == [
        "above", "below", "undecided", "undecided",
    ]  # fmt: skip


@pytest.mark.parametrize("shift", [0.0, 1.0, -2.0])
def test_differences_and_aucs_agree_with_libraries(shift: float) -> None:
    mine_n, others_n = RANDOM.normal(shift, 1, 30), RANDOM.normal(0, 2, 50)
    value, low, high = difference_of_means(mine_n, others_n)
    expected = ttest_ind(mine_n, others_n, equal_var=False).confidence_interval()
    assert (value, low, high) == pytest.approx((mine_n.mean() - others_n.mean(), expected.low, expected.high))
    value, low, high = auc(mine_n, others_n)
    assert value == pytest.approx(roc_auc_score(np.repeat([1, 0], [30, 50]), np.concatenate([mine_n, others_n])))
    assert 0 < low < value < high < 1


def test_an_auc_of_one_has_an_interval_below_it() -> None:
    value, low, high = auc(np.arange(10.0) + 100, np.arange(10.0))
    assert (value, high) == (1.0, 1.0)
    assert 0.5 < low < 1
    assert auc(np.ones(8), np.ones(8))[0] == 0.5


def test_the_interval_of_an_auc_covers_the_truth() -> None:
    covered = [(lambda low, high: low <= 0.5 <= high)(*auc(*RANDOM.normal(size=(2, 20)))[1:]) for _ in range(200)]
    assert np.mean(covered) > 0.9
