"""Tests of many slices at once, each against the rest of the images, from counts and sums alone.

Legend: S slices, B bins of confidence.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.audit.statistics import Numbers

Z = 1.959963984540054
"""Quantile of the normal distribution for intervals of 95 %."""

Pair = tuple[Numbers, Numbers]


@dataclass(frozen=True)
class Tested:
    """One measure of all slices. What is unknown is NaN.

    Attributes:
        measure: its name.
        better: direction that is better: higher, lower or neither.
        target_rule, method: what the metric belongs to; "" for measures of the model.
        value_S, rest_S: the measure in the slice, and in the rest.
        difference_S, low_S, high_S: the difference with its 95 % interval.
        p_S: two-sided.
        unit_S: what a difference is divided by to compare measures: 1 for shares, the standard deviation for metrics.
        images_S: images of the slice that have a value.
    """

    measure: str
    better: Literal["higher", "lower", "neither"]
    target_rule: str
    method: str
    value_S: Numbers
    rest_S: Numbers
    difference_S: Numbers
    low_S: Numbers
    high_S: Numbers
    p_S: Numbers
    unit_S: Numbers
    images_S: Numbers

    def to_json(self, place: int) -> dict[str, Any] | None:
        """Return the result of one slice; None where it has no value."""
        if not np.isfinite(self.value_S[place]):
            return None
        columns = {"value": self.value_S, "rest": self.rest_S, "difference": self.difference_S, "low": self.low_S,
                   "high": self.high_S, "p": self.p_S}  # fmt: skip
        numbers = {name: float(values_S[place]) for name, values_S in columns.items()}
        return {
            "images": int(self.images_S[place]),
            **{name: number if np.isfinite(number) else None for name, number in numbers.items()},
            "harm": self._harm(place),
        }  # fmt: skip

    def _harm(self, place: int) -> float | None:
        """Return the least difference in the worse direction that the interval leaves, in units; None if unknown."""
        if self.better == "neither" or not np.isfinite(self.low_S[place]) or not self.unit_S[place] > 0:
            return None
        least = -self.high_S[place] if self.better == "higher" else self.low_S[place]
        return float(least / self.unit_S[place])


def shares(measure: str, better: Literal["higher", "lower"], inside: Pair, rest: Pair) -> Tested:
    """Test shares: successes and trials of each slice and of the rest, (S,) each.

    The interval is that of Agresti and Caffo (American Statistician 2000): one success and one failure are added to
    each side. The p is that of the same statistic.
    """
    from scipy.stats import norm  # costs time to import

    known_S = (inside[1] > 0) & (rest[1] > 0)
    value_S, rest_S = (_ratio(x_S, n_S) for x_S, n_S in (inside, rest))
    near = [(x_S + 1) / (n_S + 2) for x_S, n_S in (inside, rest)]
    spread_S = np.sqrt(sum(p_S * (1 - p_S) / (n_S + 2) for p_S, (_, n_S) in zip(near, (inside, rest), strict=True)))
    shift_S = near[0] - near[1]
    p_S = np.where(known_S, 2 * norm.sf(np.abs(shift_S) / spread_S), np.nan)
    low_S, high_S = (np.where(known_S, np.clip(shift_S + sign * Z * spread_S, -1, 1), np.nan) for sign in (-1, 1))
    return Tested(
        measure, better, "", "", value_S, rest_S, value_S - rest_S, low_S, high_S, p_S, np.ones_like(value_S), inside[1]
    )


def calibration(measure: str, inside: Numbers, rest: Numbers) -> Tested:
    """Test the calibration error of each slice against that of as many images with the calibration of the rest.

    ECE = sum over bins of (n_b / n) |accuracy_b - confidence_b|

    A small slice has a large ECE by chance alone. So `rest` is the ECE to be expected of the slice's own bins if their
    accuracies were those of the rest: each gap is normal, and its absolute value has the mean and variance of the
    folded normal distribution (Leone, Nelson and Nottingham, Technometrics 1961).

    Args:
        measure: its name.
        inside, rest: images, correct predictions and summed confidences of each slice and bin, (3, S, B).
    """
    from scipy.stats import norm  # costs time to import

    n_SB, right_SB, sure_SB = inside
    total_S = n_SB.sum(1)
    weight_SB = n_SB / np.maximum(total_S, 1)[:, None]
    own_SB, confidence_SB = right_SB / np.maximum(n_SB, 1), sure_SB / np.maximum(n_SB, 1)
    others_SB = (rest[1] + confidence_SB) / (rest[0] + 1)  # a bin that the rest lacks counts as calibrated
    value_S = (weight_SB * np.abs(own_SB - confidence_SB)).sum(1)
    expected_S, noise_S = _folded(others_SB - confidence_SB, _variance(others_SB, n_SB, rest[0] + 1), weight_SB)
    known_SB = (right_SB + 1) / (n_SB + 2)
    _, spread_S = _folded(own_SB - confidence_SB, _variance(known_SB, n_SB, rest[0] + 1), weight_SB)
    known_S = (total_S > 0) & (rest[0].sum(1) > 0)
    difference_S = np.where(known_S, value_S - expected_S, np.nan)
    p_S = np.where(known_S, 2 * norm.sf(np.abs(difference_S) / np.maximum(noise_S, 1e-12)), np.nan)
    low_S, high_S = (np.where(known_S, np.clip(difference_S + sign * Z * spread_S, -1, 1), np.nan) for sign in (-1, 1))
    value_S = np.where(total_S > 0, value_S, np.nan)
    return Tested(
        measure, "lower", "", "", value_S, np.where(known_S, expected_S, np.nan), difference_S, low_S, high_S, p_S,
        np.ones_like(value_S), total_S,
    )  # fmt: skip


def _variance(accuracy_SB: Numbers, n_SB: Numbers, m_SB: Numbers) -> Numbers:
    """Return the variance of the difference of two shares over n and m images."""
    variance_SB: Numbers = accuracy_SB * (1 - accuracy_SB) * (1 / np.maximum(n_SB, 1) + 1 / m_SB)
    return variance_SB


def _folded(gap_SB: Numbers, variance_SB: Numbers, weight_SB: Numbers) -> Pair:
    """Return mean and standard deviation of the ECE of bins whose gaps have these means and variances."""
    from scipy.special import erf  # costs time to import

    spread_SB = np.sqrt(variance_SB)
    safe_SB = np.maximum(spread_SB, 1e-12)
    mean_SB = spread_SB * np.sqrt(2 / np.pi) * np.exp(-(gap_SB**2) / (2 * safe_SB**2))
    mean_SB += gap_SB * erf(gap_SB / (np.sqrt(2) * safe_SB))
    folded_SB = np.maximum(gap_SB**2 + variance_SB - mean_SB**2, 0)
    return (weight_SB * mean_SB).sum(1), np.sqrt((weight_SB**2 * folded_SB).sum(1))


def means(measure: str, better: Any, owner: tuple[str, str], inside_S3: Numbers, rest_S3: Numbers) -> Tested:  # noqa: ANN401
    """Test means (Welch's t test), from the number, the sum and the sum of squares of the values, (S, 3)."""
    from scipy.stats import t  # costs time to import

    (n_S, mean_S, error_S), (m_S, others_S, other_error_S) = _moments(inside_S3), _moments(rest_S3)
    spread_S = np.sqrt(error_S + other_error_S)
    known_S = (n_S > 1) & (m_S > 1) & (spread_S > 0)
    parts_S = error_S**2 / np.maximum(n_S - 1, 1) + other_error_S**2 / np.maximum(m_S - 1, 1)
    freedom_S = np.where(known_S, spread_S**4 / np.where(parts_S > 0, parts_S, 1), 1)
    difference_S = mean_S - others_S
    safe_S = np.where(known_S, spread_S, 1)
    p_S = np.where(known_S, 2 * t.sf(np.abs(difference_S) / safe_S, freedom_S), np.nan)
    half_S = np.where(known_S, t.ppf(0.975, freedom_S) * safe_S, np.nan)
    return Tested(
        measure, better, *owner, mean_S, others_S, difference_S, difference_S - half_S, difference_S + half_S, p_S,
        np.sqrt(other_error_S * m_S), n_S,
    )  # fmt: skip


def _moments(sums_S3: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return the number of values, their mean, and the squared standard error of the mean."""
    n_S, sum_S, squares_S = sums_S3.T
    mean_S = _ratio(sum_S, n_S)
    variance_S = np.maximum(squares_S - n_S * np.nan_to_num(mean_S) ** 2, 0) / np.maximum(n_S - 1, 1)
    variance_S[variance_S <= 1e-12 * np.maximum(squares_S, 1e-300) / np.maximum(n_S, 1)] = 0  # rounding of sums
    return n_S, mean_S, variance_S / np.maximum(n_S, 1)


def _ratio(top_S: Numbers, bottom_S: Numbers) -> Numbers:
    ratio_S: Numbers = np.divide(top_S, bottom_S, out=np.full(np.shape(top_S), np.nan), where=bottom_S > 0)
    return ratio_S
