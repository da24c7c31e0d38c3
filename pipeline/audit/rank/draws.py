"""Ranks of the methods by every metric in every run, and the ranks of a bootstrap over the images.

Legend: A runs, K metrics, N methods, I images of all runs together, R resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audit.rank.members import Member
from pipeline.audit.rank.scope import Scope
from pipeline.audit.rank.statistics import ranks_of
from pipeline.audit.statistics import RESAMPLES, Indices, Numbers, Weights, bootstrap, percentiles

SEED = 0
_DIGITS = 9


@dataclass(frozen=True)
class MeanRank:
    """The mean rank of a method over metrics and runs.

    Attributes:
        value: the mean over the metrics in each run, then over the runs.
        low, high: its 95 % bootstrap interval over the images; None with a single image.
        is_best: whether no method has a smaller mean.
        is_tied: whether the interval of the difference from the best method includes 0, so that the images cannot tell
            the two apart; False for the best itself.
        by_run: the mean over the metrics in each run.
    """

    value: float
    low: float | None
    high: float | None
    is_best: bool
    is_tied: bool
    by_run: tuple[float, ...]

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation over the runs (n - 1); None for a single run."""
        return float(np.std(self.by_run, ddof=1)) if len(self.by_run) > 1 else None


@dataclass(frozen=True)
class Ranks:
    """Ranks, 1 for the best.

    Attributes:
        ranks_AKN: ranks by the means over all images.
        drawn_RAKN: ranks by the means of every resample; NaN where it has no image of a metric.
    """

    ranks_AKN: Numbers
    drawn_RAKN: Numbers

    def means(self, chosen: Sequence[int]) -> tuple[Numbers, Numbers]:
        """Average the ranks by some metrics over these and the runs, (N,), and those of every resample, (R, N).

        They are rounded, so that equal sums of ranks give equal means.
        """
        means_N, drawn_RN = self.ranks_AKN[:, chosen].mean((0, 1)), self.drawn_RAKN[:, :, chosen].mean((1, 2))
        return np.round(means_N, _DIGITS), np.round(drawn_RN, _DIGITS)

    def mean_ranks(self, chosen: Sequence[int]) -> list[MeanRank]:
        """Describe the mean ranks by some metrics, one result for each method."""
        by_run_AN = self.ranks_AKN[:, chosen].mean(1)
        means_N, drawn_RN = self.means(chosen)
        best = int(means_N.argmin())
        return [
            MeanRank(
                value=float(means_N[n]),
                low=percentiles(drawn_RN[:, n])[0],
                high=percentiles(drawn_RN[:, n])[1],
                is_best=bool(means_N[n] == means_N[best]),
                is_tied=bool(means_N[n] != means_N[best]) and not is_above(drawn_RN[:, n] - drawn_RN[:, best]),
                by_run=tuple(float(value) for value in by_run_AN[:, n]),
            )
            for n in range(len(means_N))
        ]


def is_above(differences_R: Numbers) -> bool:
    """Tell whether the 95 % interval of a difference lies above 0; False if it is unknown."""
    low, _ = percentiles(differences_R)
    return low is not None and low > 0


def draw_ranks(members: Sequence[Member], scope: Scope, resamples: int = RESAMPLES) -> Ranks:
    """Rank the methods, and rank them again on images drawn with replacement.

    An image of several runs is drawn as often in all of them. Images of the same runs are a stratum, which keeps its
    size. All metrics and methods use the same draws.
    """
    rows, strata_I = _pooled(members)
    whole_1I = np.ones((1, len(strata_I)), np.float32)
    blocks = [_Block.of(scope, a) for a in range(len(members))]

    def ranked(weights_RI: Weights) -> Numbers:
        weights = [weights_RI[:, own] for own in rows]
        return np.stack([block.ranks(own, scope) for block, own in zip(blocks, weights, strict=True)], axis=1)

    whole = ranked(whole_1I)
    if len(strata_I) < 2:
        return Ranks(whole[0], np.full_like(whole, np.nan))
    return Ranks(whole[0], bootstrap(ranked, strata_I, SEED, resamples))


@dataclass(frozen=True)
class _Block:
    """The values of one run: the columns of all metrics and methods side by side, and the counts of each metric."""

    sums_IC: Numbers
    counts_IK: Numbers

    @classmethod
    def of(cls, scope: Scope, run: int) -> "_Block":
        paired = [scope.paired[run, k] for k in range(len(scope.metrics))]
        counts_IK = np.stack([one.counts_I for one in paired], axis=1)
        return cls(np.concatenate([one.sums_IN for one in paired], axis=1), counts_IK)

    def ranks(self, weights_RI: Weights, scope: Scope) -> Numbers:
        """Rank the methods by every metric for images that count several times, (R, K, N)."""
        weights = weights_RI.astype(np.float64)
        shape = (len(weights), len(scope.metrics), len(scope.methods))
        sums_RKN, counts_RK1 = (weights @ self.sums_IC).reshape(shape), (weights @ self.counts_IK)[:, :, None]
        means_RKN = np.divide(sums_RKN, counts_RK1, out=np.full(shape, np.nan), where=counts_RK1 > 0)
        return np.stack([ranks_of(means_RKN[:, k], one.better) for k, one in enumerate(scope.metrics)], axis=1)


def _pooled(members: Sequence[Member]) -> tuple[list[Indices], Indices]:
    """Return for each run where its images are among those of all runs, and for each image a number for its runs."""
    places = sorted({place for member in members for place in member.values.places})
    index = {place: i for i, place in enumerate(places)}
    rows = [np.array([index[place] for place in member.values.places], np.int64) for member in members]
    in_AI = np.zeros((len(members), len(places)), bool)
    for a, own in enumerate(rows):
        in_AI[a, own] = True
    return rows, np.unique(in_AI, axis=1, return_inverse=True)[1].reshape(-1)
