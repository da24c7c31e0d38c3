"""The chapter of a model with one output for two classes: AUROC, average precision, and a table of thresholds.

Legend: I labelled images, T thresholds.
"""

from typing import Any

import numpy as np

from pipeline.audit.ranking import ranked
from pipeline.audit.statistics import Numbers, wilson
from pipeline.audit.tables import class_name, query_table
from pipeline.audit.values import Flags
from pipeline.results.query import Run

THRESHOLDS = tuple(step / 10 for step in range(1, 10))
MAX_POINTS = 200
"""Points of a curve that are drawn."""

_SCORES = """
SELECT any_value(label) AS label, any_value(CASE target WHEN 1 THEN target_logit ELSE -target_logit END) AS logit
FROM parts WHERE label IS NOT NULL AND target_logit IS NOT NULL GROUP BY shard, image_key ORDER BY shard, image_key
"""
"""The logit of class 1: that of class 0 is its negative, so that every target gives it without loss of precision."""


def binary(run: Run) -> dict[str, Any]:
    """Compute the chapter; without images of both classes it holds the reason why it is empty."""
    table = query_table(run, _SCORES)
    positive_I = np.array([row["label"] == 1 for row in table["rows"]], bool)
    logits_I = np.array([row["logit"] for row in table["rows"]], np.float64)
    both = bool(positive_I.any() and not positive_I.all())
    auroc, precision = ranked(logits_I, positive_I, run.manifest.identity.seed)
    return {
        "sentence": "" if both else _why_not(run, positive_I),
        "name": class_name(run, 1),
        "images": len(positive_I),
        "positive": int(positive_I.sum()),
        "auroc": auroc,
        "average_precision": precision,
        "thresholds": [_at(threshold, _sigmoid(logits_I), positive_I) for threshold in THRESHOLDS] if both else [],
        "roc": _roc(logits_I, positive_I) if both else [],
        "precision_recall": _precision_recall(logits_I, positive_I) if both else [],
        "scores_sql": table["sql"],
    }


def _why_not(run: Run, positive_I: Flags) -> str:
    if not len(positive_I):
        return "AUROC, average precision and thresholds need labels, and no explained image has one."
    name = class_name(run, int(positive_I[0]))
    return f"AUROC, average precision and thresholds need images of both classes, but all labels are '{name}'."


def _sigmoid(logits_I: Numbers) -> Numbers:
    from scipy.special import expit  # costs time to import

    confidences_I: Numbers = expit(logits_I)
    return confidences_I


def _at(threshold: float, confidences_I: Numbers, positive_I: Flags) -> dict[str, Any]:
    """Count the decisions of one threshold: class 1 where its confidence is larger."""
    from sklearn.metrics import confusion_matrix  # costs time to import

    matrix = confusion_matrix(positive_I, confidences_I > threshold, labels=[False, True])
    true_negative, false_positive, false_negative, true_positive = map(int, matrix.ravel())
    shares = {
        "recall": (true_positive, true_positive + false_negative),
        "specificity": (true_negative, true_negative + false_positive),
        "precision": (true_positive, true_positive + false_positive),
        "accuracy": (true_positive + true_negative, len(positive_I)),
    }
    row: dict[str, Any] = {
        "threshold": threshold, "true_positive": true_positive, "false_positive": false_positive,
        "false_negative": false_negative, "true_negative": true_negative,
        "f1": 2 * true_positive / max(1, 2 * true_positive + false_positive + false_negative),
    }  # fmt: skip
    for name, (count, total) in shares.items():
        row[name] = count / total if total else None
        row[f"{name}_low"], row[f"{name}_high"] = wilson(count, total)
    return row


def _roc(logits_I: Numbers, positive_I: Flags) -> list[dict[str, float]]:
    from sklearn.metrics import roc_curve  # costs time to import

    false_T, true_T, _ = roc_curve(positive_I, logits_I)
    return _curve("false_positive_rate", false_T, "recall", true_T)


def _precision_recall(logits_I: Numbers, positive_I: Flags) -> list[dict[str, float]]:
    from sklearn.metrics import precision_recall_curve  # costs time to import

    precision_T, recall_T, _ = precision_recall_curve(positive_I, logits_I)
    return _curve("recall", recall_T, "precision", precision_T)


def _curve(x: str, x_T: Numbers, y: str, y_T: Numbers) -> list[dict[str, float]]:
    """Return the points of a curve, thinned evenly, with both ends."""
    chosen = np.unique(np.linspace(0, len(x_T) - 1, min(len(x_T), MAX_POINTS)).round().astype(np.int64))
    return [{"order": float(i), x: float(x_T[i]), y: float(y_T[i])} for i in chosen]
