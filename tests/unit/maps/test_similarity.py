"""Correlations and structural similarity agree with scipy and with values computed by hand."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from pipeline.maps.similarity import SIDE, enlarged, mean_interval, pearson, spearman, ssim

RANDOM = np.random.default_rng(0).random((5, 7, 7), np.float32)


def test_rank_correlation_agrees_with_scipy_with_and_without_ties() -> None:
    one, other = enlarged(RANDOM), enlarged(np.round(RANDOM[::-1] * 4))
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(spearman(one, other), expected, atol=1e-9)


def test_linear_correlation_agrees_with_numpy() -> None:
    one, other = enlarged(RANDOM), enlarged(RANDOM[::-1] ** 3)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(pearson(one, other), expected, atol=1e-6)


def test_a_map_is_similar_to_itself_and_not_to_its_negative() -> None:
    maps = enlarged(RANDOM)
    np.testing.assert_allclose(spearman(maps, maps), 1)
    np.testing.assert_allclose(pearson(maps, 1 - maps), -1, atol=1e-5)
    np.testing.assert_allclose(ssim(maps, maps), 1)
    np.testing.assert_allclose(spearman(maps, 1 - maps), -1, atol=1e-5)
    assert (ssim(maps, 1 - maps) < 0.5).all()


def test_grids_of_different_sizes_are_compared_as_heat_maps() -> None:
    coarse = np.array([[[0.0, 1.0], [2.0, 3.0]]], np.float32)
    fine = enlarged(coarse)
    assert fine.shape == (1, SIDE, SIDE)
    assert spearman(enlarged(coarse), enlarged(fine))[0] == pytest.approx(1)


def test_the_similarity_to_a_degenerate_map_is_nan() -> None:
    maps = enlarged(
        np.concatenate([RANDOM[:1], np.ones((1, 7, 7), np.float32), np.full((1, 7, 7), np.nan, np.float32)])
    )
    others = enlarged(RANDOM[:3])
    assert np.isnan(spearman(maps, others)).tolist() == [False, True, True]
    assert np.isnan(pearson(maps, others)).tolist() == [False, True, True]
    assert np.isnan(ssim(others, maps)).tolist() == [False, True, True]


def test_the_interval_uses_only_finite_values() -> None:
    mean, half, count = mean_interval(np.array([1.0, 2.0, 3.0, np.nan]))
    assert (mean, count) == (2.0, 3)
    assert half == pytest.approx(4.302653 / 3**0.5)  # Student's t with two degrees of freedom
    assert mean_interval(np.array([np.nan])) == (None, None, 0)
    assert mean_interval(np.array([5.0])) == (5.0, None, 1)
