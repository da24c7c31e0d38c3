"""Statistics of the judge: agreement with the truth, order, free gains, size and repeatability, with intervals.

Legend: S scenes, M maps of a scene, R resamples, C columns.
"""

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
RESAMPLES = 2000
HALF_A_PLACE = 0.5
_95 = 1.96


def agreement(values_SM: Values, truth_SM: Values) -> Values:
    """Compute Kendall's tau-b of a metric and the truth over the maps of each scene, (S,).

    NaN where fewer than three maps have both values, or where one of the two is the same for all maps.
    """
    return np.array([_tau(one_M, other_M) for one_M, other_M in zip(values_SM, truth_SM, strict=True)])


def _tau(one_M: Values, other_M: Values) -> float:
    from scipy.stats import kendalltau  # slow to import

    known_M = np.isfinite(one_M) & np.isfinite(other_M)
    one_M, other_M = one_M[known_M], other_M[known_M]
    if len(one_M) < 3 or np.ptp(one_M) == 0 or np.ptp(other_M) == 0:
        return float("nan")
    return float(kendalltau(one_M, other_M).statistic)


def share_above(values_S: Values, other_S: Values) -> float | None:
    """Compute the share of scenes on which one value is larger than the other; ties count half."""
    known_S = np.isfinite(values_S) & np.isfinite(other_S)
    if not known_S.any():
        return None
    values_S, other_S = values_S[known_S], other_S[known_S]
    return float(np.mean((values_S > other_S) + 0.5 * (values_S == other_S)))


def gain(changed_S: Values, before_S: Values, unit: float) -> tuple[float, float] | None:
    """Compute on which share of scenes a change is rewarded, and its mean gain in a unit; None without values."""
    known_S = np.isfinite(changed_S) & np.isfinite(before_S)
    if not known_S.any() or not unit > 0:
        return None
    gained_S = changed_S[known_S] - before_S[known_S]
    return float(np.mean(gained_S > 1e-9)), float(gained_S.mean() / unit)


def spearman_by_scene(values_SM: Values, other_M: Values) -> Values:
    """Compute Spearman's rho of a metric and a quantity over the maps of each scene, (S,); NaN where undefined."""
    from scipy.stats import spearmanr  # slow to import

    def one(values_M: Values) -> float:
        known_M = np.isfinite(values_M)
        if known_M.sum() < 3 or np.ptp(values_M[known_M]) == 0:
            return float("nan")
        return float(spearmanr(values_M[known_M], other_M[known_M]).statistic)

    return np.array([one(values_M) for values_M in values_SM])


def mean_interval(values_S: Values, seed: int) -> dict[str, float | int | None] | None:
    """Return the mean over scenes with its 95 % bootstrap interval, and the number of scenes; None without values."""
    known_S = values_S[np.isfinite(values_S)]
    if not len(known_S):
        return None
    random = np.random.default_rng(seed)
    means_R = known_S[random.integers(0, len(known_S), (RESAMPLES, len(known_S)))].mean(1)
    low, high = np.quantile(means_R, (0.025, 0.975))
    return {"mean": float(known_S.mean()), "low": float(low), "high": float(high), "scenes": len(known_S)}


def ranks(values_SM: Values) -> Values:
    """Rank the maps of each scene, 1 for the best (largest) value; tied maps share the mean rank.

    Scenes with a missing value, or without any difference, are left out.
    """
    from scipy.stats import rankdata  # slow to import

    usable = values_SM[np.isfinite(values_SM).all(1)]
    usable = usable[np.ptp(usable, axis=1) > 0] if len(usable) else usable
    return np.asarray(rankdata(-usable, axis=1), np.float64) if len(usable) else np.empty((0, values_SM.shape[1]))


def krippendorff_alpha(ranks_SM: Values) -> float | None:
    """Compute Krippendorff's alpha of a ranking: scenes are the raters, maps the units, differences are squared.

    alpha = 1 - D_o / D_e,   D_o the mean squared difference of two raters on one unit, D_e that of any two values

    1 if all scenes rank alike, 0 if they rank by chance.
    """
    scenes, maps = ranks_SM.shape
    if scenes < 2 or maps < 2:
        return None
    observed = float(ranks_SM.var(0).mean()) * 2 * scenes / (scenes - 1)
    total = scenes * maps
    expected = float(ranks_SM.var()) * 2 * total / (total - 1)
    return 1 - observed / expected if expected > 0 else None


def scenes_needed(ranks_SM: Values) -> int | None:
    """Return how many scenes narrow the 95 % interval of every map's mean rank to half a place on either side."""
    if len(ranks_SM) < 2:
        return None
    spread = float(ranks_SM.std(0, ddof=1).max())
    return max(2, int(np.ceil((_95 * spread / HALF_A_PLACE) ** 2)))
