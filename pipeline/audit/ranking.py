"""Scores of a ranking for many resamples at once: AUROC and average precision with images drawn several times.

scikit-learn computes the same for one set of weights; a bootstrap needs thousands.

Legend: I images, R resamples, U distinct scores.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.audit.statistics import Indices, Numbers, Weights, bootstrap, percentiles
from pipeline.audit.values import Flags

Estimate = dict[str, float | None]
"""`value`, and `low` and `high` of its 95 % interval; None where it is not defined."""

UNDEFINED: Estimate = {"value": None, "low": None, "high": None}


def estimate(value: float, values_R: Numbers) -> Estimate:
    """Return a value with the interval of its bootstrap."""
    low, high = percentiles(values_R)
    return {"value": float(value), "low": low, "high": high}


@dataclass(frozen=True)
class Ranking:
    """Images in the order of their scores, so that resamples need not be sorted.

    Attributes:
        order_I: the images, smallest score first.
        starts_U: the position in `order_I` where each distinct score begins.
        positive_I: whether each image, in that order, is positive.
    """

    order_I: Indices
    starts_U: Indices
    positive_I: Flags

    @classmethod
    def of(cls, scores_I: Numbers, positive_I: Flags) -> "Ranking":
        """Sort images by their scores."""
        order_I = np.argsort(scores_I, kind="stable")
        _, starts_U = np.unique(scores_I[order_I], return_index=True)
        return cls(order_I, starts_U, positive_I[order_I])

    def auroc(self, weights_RI: Weights) -> Numbers:
        """Return the probability that a positive image has a larger score than a negative one; ties count half."""
        positive_RU, negative_RU = self._totals(weights_RI)
        below_RU = negative_RU.cumsum(1) - negative_RU / 2
        return _ratio((positive_RU * below_RU).sum(1), positive_RU.sum(1) * negative_RU.sum(1))

    def average_precision(self, weights_RI: Weights) -> Numbers:
        """Return the mean precision over the positive images, each at its own score: sum_u (P_u / P) TP_u / N_u."""
        positive_RU, negative_RU = (totals_RU[:, ::-1] for totals_RU in self._totals(weights_RI))
        precision_RU = _ratio(positive_RU.cumsum(1), (positive_RU + negative_RU).cumsum(1))
        return _ratio((positive_RU * np.nan_to_num(precision_RU)).sum(1), positive_RU.sum(1))

    def _totals(self, weights_RI: Weights) -> tuple[Numbers, Numbers]:
        """Return how many positive and negative images each resample has at each score, (R, U)."""
        sorted_RI = weights_RI[:, self.order_I].astype(np.float64)
        positive_RU = np.add.reduceat(sorted_RI * self.positive_I, self.starts_U, axis=1)
        return positive_RU, np.add.reduceat(sorted_RI, self.starts_U, axis=1) - positive_RU


def ranked(scores_I: Numbers, positive_I: Flags, seed: int) -> tuple[Estimate, Estimate]:
    """Return AUROC and average precision with their intervals; undefined unless there are both kinds of images."""
    from sklearn.metrics import average_precision_score, roc_auc_score  # costs time to import

    if positive_I.all() or not positive_I.any():
        return UNDEFINED, UNDEFINED
    ranking, strata_I = Ranking.of(scores_I, positive_I), positive_I.astype(np.int64)
    both_R2 = bootstrap(
        lambda weights_RI: np.stack([ranking.auroc(weights_RI), ranking.average_precision(weights_RI)], axis=1),
        strata_I, seed,
    )  # fmt: skip
    return (
        estimate(roc_auc_score(positive_I, scores_I), both_R2[:, 0]),
        estimate(average_precision_score(positive_I, scores_I), both_R2[:, 1]),
    )


def _ratio(top: Numbers, bottom: Numbers) -> Numbers:
    ratio: Numbers = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return ratio
