"""Ranks and their agreement: tied ranks, Kendall's W and tau.

Legend: N methods, J judges, R resamples; `...` any leading axes.
"""

import numpy as np

from pipeline.audit.statistics import Numbers

DIGITS = 6
"""Means that are equal to this many significant digits are tied: values are stored as float32."""


def ranks_of(means_N: Numbers, better: str) -> Numbers:
    """Rank the last axis, (..., N): 1 for the best; tied means share the mean of their ranks; NaN where one is missing.

    Args:
        means_N: mean values of the methods, (..., N).
        better: "higher" or "lower".
    """
    from scipy.stats import rankdata  # costs time to import

    largest = np.abs(means_N).max(-1, keepdims=True)
    scaled_N = np.divide(means_N, largest, out=np.zeros_like(means_N), where=largest > 0)
    rounded_N = np.round(scaled_N, DIGITS) * (-1 if better == "higher" else 1)
    ranks_N = np.asarray(rankdata(rounded_N, axis=-1), np.float64)
    return np.where(np.isnan(largest), np.nan, ranks_N)


def kendalls_w(ranks_JN: Numbers) -> float | None:
    """Compute Kendall's coefficient of concordance, corrected for ties.

    W = 12 sum_i (R_i - mean R)^2 / (J^2 (N^3 - N) - J sum_j T_j),   T_j = sum_g (t_g^3 - t_g)

    R_i is the sum of the ranks of method i, and t_g the size of each group of ties of judge j. W is 1 if all judges
    rank alike; judges that rank by chance reach 1/J on average. None with fewer than two judges or methods, or if no
    judge sees a difference.

    Reference: Kendall, Babington Smith. The problem of m rankings. Annals of Mathematical Statistics 1939.
    """
    judges, methods = ranks_JN.shape
    if judges < 2 or methods < 2:
        return None
    sums_N = ranks_JN.sum(0)
    ties = sum(float((sizes**3 - sizes).sum()) for sizes in map(_group_sizes, ranks_JN))
    largest = judges**2 * (methods**3 - methods) - judges * ties
    return float(12 * ((sums_N - sums_N.mean()) ** 2).sum() / largest) if largest > 0 else None


def kendalls_tau(one_N: Numbers, other_N: Numbers) -> Numbers:
    """Compute Kendall's tau-b of the last axes, (...); NaN where one of them has no difference.

    tau = (concordant - discordant pairs) / sqrt(pairs untied in the one * pairs untied in the other)
    """
    left, right = np.triu_indices(one_N.shape[-1], 1)
    signs = [np.sign(ranks_N[..., left] - ranks_N[..., right]) for ranks_N in (one_N, other_N)]
    untied = [np.abs(sign).sum(-1) for sign in signs]
    both = np.sqrt(untied[0] * untied[1])
    tau: Numbers = np.divide((signs[0] * signs[1]).sum(-1), both, out=np.full_like(both, np.nan), where=both > 0)
    return tau


def _group_sizes(ranks_N: Numbers) -> Numbers:
    """Return the sizes of the groups of equal ranks."""
    return np.unique(ranks_N, return_counts=True)[1].astype(np.float64)
