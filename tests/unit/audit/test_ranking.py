"""Scores of a ranking against scikit-learn, for images that are drawn several times, and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.audit.ranking import Ranking, ranked


def test_resamples_are_those_of_scikit_learn_with_weights() -> None:
    random = np.random.default_rng(0)
    positive_I = random.random(40) < 0.4
    scores_I = np.round(random.normal(size=40) + positive_I, 1)  # rounded, so that there are ties
    weights_RI = random.integers(0, 3, (20, 40)).astype(np.float32)
    ranking = Ranking.of(scores_I, positive_I)
    for scores_R, score in (
        (ranking.auroc(weights_RI), roc_auc_score),
        (ranking.average_precision(weights_RI), average_precision_score),
    ):
        expected = [score(positive_I, scores_I, sample_weight=weights_I) for weights_I in weights_RI]
        assert scores_R == pytest.approx(expected, abs=1e-9)


def test_a_ranking_by_hand() -> None:
    auroc, precision = ranked(np.array([-2.0, -1.0, 0.5, 3.0]), np.array([False, True, False, True]), 0)
    assert auroc["value"] == pytest.approx(3 / 4)  # of four pairs, only (-1, 0.5) is in the wrong order
    assert precision["value"] == pytest.approx((1 + 2 / 3) / 2)
    assert auroc["low"] is not None
    assert auroc["low"] <= 3 / 4 <= (auroc["high"] or 0)


@pytest.mark.parametrize("positive", [True, False])
def test_one_kind_of_images_has_no_ranking(positive: bool) -> None:
    auroc, precision = ranked(np.arange(3.0), np.full(3, positive), 0)
    assert auroc["value"] is precision["value"] is None
