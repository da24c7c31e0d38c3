"""Intervals, tests and resampling for the report.

Legend: I images, K columns (one metric of one method), R resamples, G strata.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float32]

Column = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Sum and number of the values of each image."""

RESAMPLES = 2000
LEVEL = 0.95
NORMAL = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half width of the 95 % interval of a normal distribution, in standard deviations."""
RARE = 20
"""Classes with fewer images are marked as small, and are not clustered."""

_BYTES_AT_ONCE = 1 << 27


def wilson(successes: int, trials: int) -> tuple[float | None, float | None]:
    """Return the 95 % Wilson score interval of a share (JASA 1927); (None, None) without trials.

    (p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n)

    It is written out because `camatlas check` needs it on machines without scipy.
    """
    if not trials:
        return None, None
    share, square = successes / trials, NORMAL**2 / trials
    half = (share * (1 - share) * square + square**2 / 4) ** 0.5
    low, high = ((share + square / 2 + side * half) / (1 + square) for side in (-1, 1))
    return low if successes else 0.0, high if successes < trials else 1.0


@dataclass(frozen=True)
class Resampled:
    """Bootstrap means of columns.

    Attributes:
        mean_K: the means over the original images, NaN for a column without values.
        means_RK: the means of every resample.
    """

    mean_K: Numbers
    means_RK: Numbers

    def interval(self, column: int) -> tuple[float | None, float | None]:
        """Return the 95 % percentile interval of the mean of a column."""
        return percentiles(self.means_RK[:, column])

    def difference(self, column: int) -> "Difference":
        """Return mean, interval and two-sided bootstrap p of a column of differences."""
        known_R = self.means_RK[:, column]
        known_R = known_R[np.isfinite(known_R)]
        if not len(known_R):
            return Difference(None, None, None, None)
        low, high = percentiles(known_R)
        tail = min(np.count_nonzero(known_R <= 0), np.count_nonzero(known_R >= 0))
        p = min(1.0, 2 * (tail + 1) / (len(known_R) + 1))
        return Difference(float(self.mean_K[column]), low, high, p)


@dataclass(frozen=True)
class Difference:
    """Difference of two means over the same images, with its 95 % interval and two-sided bootstrap p."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None

    @property
    def tied(self) -> bool:
        """Return whether the interval includes 0, or is unknown."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


def resampled(
    sums_IK: npt.NDArray[np.float32],
    counts_IK: npt.NDArray[np.float32],
    strata_I: Indices,
    seed: int,
    resamples: int = RESAMPLES,
) -> Resampled:
    """Bootstrap the means of all columns: draw images with replacement within each stratum, which keeps its size.

    mean_k = sum_i w_i s_ik / sum_i w_i c_ik,   w_i the number of times image i was drawn

    All columns use the same resamples. Strata of a single image are pooled, because alone they would never vary. With
    a single image in total there is no interval.

    Args:
        sums_IK: the sum of an image's values in a column; 0 where it has none.
        counts_IK: the number of values in that sum.
        strata_I: the stratum of each image.
        seed: of the random generator.
        resamples: number of resamples.
    """
    strata_I = _pooled(strata_I)
    order_I = np.argsort(strata_I, kind="stable")
    sums_IK, counts_IK = sums_IK[order_I], counts_IK[order_I]
    whole_1I = np.ones((1, len(sums_IK)), np.float32)
    draws = _weights(strata_I[order_I], np.random.default_rng(seed), resamples)
    means_RK = np.concatenate([_means(weights_RI, sums_IK, counts_IK) for weights_RI in draws])
    if len(sums_IK) < 2:
        means_RK[:] = np.nan
    return Resampled(_means(whole_1I, sums_IK, counts_IK)[0], means_RK)


def bootstrap(
    statistic: Callable[[Weights], Numbers], strata_I: Indices, seed: int, resamples: int = RESAMPLES
) -> Numbers:
    """Return a statistic of each resample, (R, ...); the images are drawn as in `resampled`.

    Args:
        statistic: computes (R, ...) from the number of times each image is drawn, (R, I).
        strata_I: the stratum of each image; there are at least two images.
        seed: of the random generator.
        resamples: number of resamples.
    """
    strata_I = _pooled(strata_I)
    order_I = np.argsort(strata_I, kind="stable")
    place_I = np.argsort(order_I, kind="stable")
    draws = _weights(strata_I[order_I], np.random.default_rng(seed), resamples)
    return np.concatenate([statistic(weights_RI[:, place_I]) for weights_RI in draws])


def differences(one: Column, other: Column) -> Column:
    """Subtract two columns image by image; images that lack a value in either of them count as missing.

    Args:
        one, other: sums and counts of the values of each image, (I,) each.
    """
    known_I = (one[1] > 0) & (other[1] > 0)
    means = [sums_I / np.maximum(counts_I, 1) for sums_I, counts_I in (one, other)]
    return np.where(known_I, means[0] - means[1], 0).astype(np.float32), known_I.astype(np.float32)


def paired_p(differences_I: Column) -> float | None:
    """Return the two-sided p of Student's paired t test; None with fewer than two values or without variance.

    The bootstrap cannot give a p below 2 / (R + 1), which becomes large when adjusted for many comparisons.
    """
    from scipy.stats import ttest_1samp  # costs time to import

    known_I = differences_I[0][differences_I[1] > 0].astype(np.float64)
    if len(known_I) < 2 or not np.ptp(known_I):
        return None
    return float(ttest_1samp(known_I, 0.0).pvalue)


def _pooled(strata_I: Indices) -> Indices:
    """Merge all strata of a single image into one stratum."""
    _, group_I, sizes_G = np.unique(strata_I, return_inverse=True, return_counts=True)
    pooled_I: Indices = np.where(sizes_G[group_I] == 1, -1, group_I)
    return pooled_I


def _weights(sorted_I: Indices, random: np.random.Generator, resamples: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the number of times each image is drawn, (R, I), in batches of resamples."""
    _, starts_G, sizes_G = np.unique(sorted_I, return_index=True, return_counts=True)
    starts_I, sizes_I = np.repeat(starts_G, sizes_G), np.repeat(sizes_G, sizes_G)
    images = len(sorted_I)
    at_once = max(1, _BYTES_AT_ONCE // (8 * max(1, images)))
    for first in range(0, resamples, at_once):
        rows = min(at_once, resamples - first)
        drawn_RI = starts_I + (random.random((rows, images)) * sizes_I).astype(np.int64)
        drawn_RI += images * np.arange(rows)[:, None]
        yield np.bincount(drawn_RI.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float32)


def _means(
    weights_RI: npt.NDArray[np.float32], sums_IK: npt.NDArray[np.float32], counts_IK: npt.NDArray[np.float32]
) -> Numbers:
    totals_RK, counts_RK = (np.asarray(weights_RI @ values, np.float64) for values in (sums_IK, counts_IK))
    means_RK: Numbers = np.where(counts_RK > 0, totals_RK / np.where(counts_RK > 0, counts_RK, 1), np.nan)
    return means_RK


def percentiles(values_R: Numbers) -> tuple[float | None, float | None]:
    """Return the 95 % percentile interval of the finite values of resamples."""
    known_R = values_R[np.isfinite(values_R)]
    if not len(known_R):
        return None, None
    low, high = np.quantile(known_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for multiple tests (Holm, Scandinavian Journal of Statistics 1979); keeps their order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def calibration_error(
    confidences: Sequence[float | None], accuracies: Sequence[float | None], images: Sequence[int]
) -> float | None:
    """Return the expected calibration error of bins (Naeini, AAAI 2015).

    sum over bins of (n_b / n) |accuracy_b - confidence_b|

    Args:
        confidences: mean confidence of each bin; None for an empty bin.
        accuracies: share of correct predictions of each bin.
        images: number of images of each bin.
    """
    total = sum(images)
    gaps = [
        count * abs(accuracy - confidence)
        for confidence, accuracy, count in zip(confidences, accuracies, images, strict=True)
        if confidence is not None and accuracy is not None
    ]
    return sum(gaps) / total if total else None
