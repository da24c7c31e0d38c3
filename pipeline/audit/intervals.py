"""Intervals of correlations, differences and AUCs that stay in their range, and on which side of a limit they lie."""

from typing import Literal

import numpy as np

from pipeline.audit.statistics import LEVEL, Numbers
from pipeline.maps.similarity import mean_interval

Side = Literal["above", "below", "undecided"]


def side(low: float | None, high: float | None, limit: float) -> Side:
    """Tell on which side of a limit an interval lies; one that contains the limit, or is unknown, does not decide."""
    if low is None or high is None or low <= limit <= high:
        return "undecided"
    return "above" if low > limit else "below"


def correlation_interval(mean: float | None, half_width: float | None) -> tuple[float | None, float | None]:
    """Return the interval of a mean correlation from half its symmetric width, by Fisher's z; it lies in [-1, 1].

    z = artanh(r), and half of its width is that of r divided by dz/dr = 1 - r^2
    """
    if mean is None or half_width is None:
        return None, None
    if not half_width:
        return mean, mean
    inner = float(np.clip(mean, -1 + 1e-9, 1 - 1e-9))
    centre, half = np.arctanh(inner), half_width / (1 - inner**2)
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def correlations(values_N: Numbers) -> tuple[float | None, float | None, float | None, int]:
    """Return the mean of correlations, its 95 % interval in [-1, 1], and the number of finite ones."""
    mean, half_width, count = mean_interval(values_N)
    return mean, *correlation_interval(mean, half_width), count


def difference_of_means(mine_n: Numbers, others_n: Numbers) -> tuple[float, float, float]:
    """Return the difference of two means with Welch's 95 % interval; both groups have at least two values."""
    from scipy.stats import t  # costs time to import

    value = float(mine_n.mean() - others_n.mean())
    parts = [float(values_n.var(ddof=1)) / len(values_n) for values_n in (mine_n, others_n)]
    if not sum(parts):
        return value, value, value
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values_n) - 1) for part, values_n in zip(parts, (mine_n, others_n), strict=True)
    )
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * sum(parts) ** 0.5
    return value, value - half, value + half


def auc(mine_n: Numbers, others_n: Numbers) -> tuple[float, float, float]:
    """Return the probability that a value of the first group exceeds one of the second, with DeLong's 95 % interval.

    The variance is that of DeLong, DeLong and Clarke-Pearson (Biometrics 1988), on the logit scale, so that the
    interval lies in [0, 1]. Perfect separation counts half a pair as wrong.
    """
    from scipy.stats import norm, rankdata  # costs time to import

    m, n = len(mine_n), len(others_n)
    ranks = rankdata(np.concatenate([mine_n, others_n]))
    below_m = (ranks[:m] - rankdata(mine_n)) / n
    above_n = 1 - (ranks[m:] - rankdata(others_n)) / m
    value = float(below_m.mean())
    spread = float(np.sqrt(below_m.var(ddof=1) / m + above_n.var(ddof=1) / n)) if min(m, n) > 1 else 0.5
    inner = float(np.clip(value, 0.5 / (m * n), 1 - 0.5 / (m * n)))
    centre = np.log(inner / (1 - inner))
    half = norm.ppf((1 + LEVEL) / 2) * max(spread, 0.5 / (m * n)) / (inner * (1 - inner))
    low, high = (float(1 / (1 + np.exp(-(centre + sign * half)))) for sign in (-1, 1))
    return value, min(low, value), max(high, value)
