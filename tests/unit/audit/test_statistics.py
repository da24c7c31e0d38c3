"""Intervals, resampling and corrections against SciPy, formulas and values computed by hand."""

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.statistics import (
    Resampled,
    calibration_error,
    differences,
    holm,
    paired_p,
    resampled,
    wilson,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (7, 9), (50, 100), (999, 1000)])
def test_wilson_is_the_formula(successes: int, trials: int) -> None:
    z, share = stats.norm.ppf(0.975), successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    assert wilson(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_wilson_is_unknown_without_trials() -> None:
    assert wilson(0, 0) == (None, None)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_calibration_error_by_hand() -> None:
    assert calibration_error([0.1, None, 0.9], [0.2, None, 0.6], [10, 0, 30]) == pytest.approx(
        (10 * 0.1 + 30 * 0.3) / 40
    )
    assert calibration_error([], [], []) is None


def drawn(values_IK: np.ndarray, strata_I: np.ndarray, seed: int = 0) -> Resampled:
    known_IK = np.isfinite(values_IK)
    return resampled(
        np.where(known_IK, values_IK, 0).astype(np.float32), known_IK.astype(np.float32), strata_I, seed, 4000
    )


def test_intervals_equal_those_of_scipy() -> None:
    random = np.random.default_rng(1)
    groups = [random.normal(place, 1 + place, size) for place, size in ((0, 40), (2, 25), (5, 10))]
    values_I1 = np.concatenate(groups)[:, None]
    strata_I = np.repeat(np.arange(3), [len(group) for group in groups])

    def mean(*samples: np.ndarray, axis: int) -> np.ndarray:
        return np.concatenate(samples, axis=axis).mean(axis)

    wanted = stats.bootstrap(
        groups, mean, method="percentile", n_resamples=4000, vectorized=True, rng=np.random.default_rng(2)
    ).confidence_interval
    found = drawn(values_I1, strata_I)
    spread = wanted.high - wanted.low
    assert found.mean_K[0] == pytest.approx(values_I1.mean(), abs=1e-6)
    assert found.interval(0) == pytest.approx((wanted.low, wanted.high), abs=0.06 * spread)


def test_each_stratum_keeps_its_size() -> None:
    strata_I = np.array([0, 1, 1, 0, 1])
    found = drawn(strata_I[:, None].astype(float), strata_I)
    assert np.allclose(found.means_RK, 0.6)


def test_missing_values_are_left_out_and_empty_columns_are_unknown() -> None:
    values_IK = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    found = drawn(values_IK, np.zeros(3, np.int64))
    assert found.mean_K[0] == 2
    assert np.isnan(found.mean_K[1])
    assert found.interval(1) == (None, None)
    assert found.difference(1).tied


def test_the_order_of_the_images_does_not_matter() -> None:
    random = np.random.default_rng(3)
    values_I1, strata_I = random.normal(size=(30, 1)), random.integers(0, 3, 30)
    order = np.argsort(strata_I, kind="stable")
    one, other = drawn(values_I1, strata_I), drawn(values_I1[order], strata_I[order])
    assert np.allclose(one.means_RK, other.means_RK)


def test_paired_differences_are_more_sensitive_than_unpaired_ones() -> None:
    random = np.random.default_rng(4)
    image_I = random.normal(0, 10, 200)
    one, other = image_I + random.normal(0.5, 0.2, 200), image_I
    ones = np.ones(200, np.float32)
    column = differences((one.astype(np.float32), ones), (other.astype(np.float32), ones))
    difference = resampled(column[0][:, None], column[1][:, None], np.zeros(200, np.int64), 0).difference(0)
    assert difference.value == pytest.approx((one - other).mean(), abs=1e-5)
    assert not difference.tied
    assert difference.p is not None
    assert difference.p < 0.01
    same = resampled(np.zeros((9, 1), np.float32), np.ones((9, 1), np.float32), np.zeros(9, np.int64), 0).difference(0)
    assert same.tied
    assert same.p == 1


def test_differences_leave_out_images_that_lack_one() -> None:
    one = (np.array([4.0, 6.0, 0.0], np.float32), np.array([2.0, 1.0, 0.0], np.float32))
    other = (np.array([1.0, 0.0, 5.0], np.float32), np.array([1.0, 0.0, 1.0], np.float32))
    sums_I, counts_I = differences(one, other)
    assert sums_I.tolist() == [1, 0, 0]
    assert counts_I.tolist() == [1, 0, 0]


def test_a_large_difference_stays_significant_after_correction() -> None:
    random, ones = np.random.default_rng(5), np.ones(500, np.float32)
    clear = paired_p((random.normal(-0.5, 0.3, 500).astype(np.float32), ones))
    assert clear is not None
    assert holm([clear] * 50)[0] < 1e-20
    nothing = paired_p((random.normal(0, 0.3, 500).astype(np.float32), ones))
    assert nothing is not None
    assert nothing > 0.01
    assert paired_p((ones, ones)) is None  # no variance
    assert paired_p((ones, np.zeros(500, np.float32))) is None  # no values


def test_strata_of_one_image_are_pooled_and_a_single_image_has_no_interval() -> None:
    values_I1 = np.array([[0.0]] + [[1.0]] * 9)
    low, high = drawn(values_I1, np.arange(10)).interval(0)
    assert low is not None
    assert high is not None
    assert low < 0.9 <= high
    alone = drawn(np.array([[1.0]]), np.zeros(1, np.int64))
    assert alone.interval(0) == (None, None)
    assert (alone.difference(0).p, alone.difference(0).tied) == (None, True)
