"""The chapter of a model with independent labels: F1, average precision, recall and calibration label by label.

The rows of a run do not hold every confidence, so the chapter says what they do not tell, and which targets would.

Legend: I images whose labels are known, C classes, R resamples.
"""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.audit.label_pairs import LabelPairs, label_pairs
from pipeline.audit.ranking import UNDEFINED, Estimate, Ranking, estimate
from pipeline.audit.statistics import RESAMPLES, Indices, Numbers, Weights, bootstrap, calibration_error, wilson
from pipeline.audit.tables import class_name
from pipeline.results.query import Run
from pipeline.settings.targets import TargetRules

BINS, MIN_RESAMPLES, MAX_CELLS = 15, 200, 2e9
"""Bins of calibration, the fewest resamples, and the most weights that the resamples of average precision hold."""


def multilabel(run: Run) -> dict[str, Any]:
    """Compute the chapter; `sentences` say what could not be computed, and why."""
    pairs, rules = label_pairs(run), TargetRules.parse(run.manifest.identity.targets)
    seed = run.manifest.identity.seed
    whole = bool(pairs.images) and not pairs.truncated
    f1 = _f1(pairs, seed) if whole else {"micro": UNDEFINED, "macro": UNDEFINED}
    mean_precision, precisions = _average_precision(pairs, seed) if pairs.images else (UNDEFINED, {})
    calibrated = pairs.images > 0 and (bool(pairs.listed) or rules.above > 0 or rules.top > 0)
    return {
        "images": pairs.images,
        "left_out": pairs.left_out,
        "threshold": pairs.threshold,
        "f1": f1,
        "mean_average_precision": mean_precision,
        "labels": _labels(run, pairs, precisions, whole=whole) if pairs.images else [],
        "calibration": _calibration(pairs) if calibrated else {"error": None, "bins": [], "what": ""},
        "sentences": list(_sentences(pairs, rules, whole=whole, calibrated=calibrated)),
    }


def _f1(pairs: LabelPairs, seed: int) -> dict[str, Estimate]:
    """Return F1 over all pairs (micro) and as the mean over the classes (macro), with bootstrap intervals.

    F1 = 2 TP / (2 TP + FP + FN), and 0 for a class without any of them, as in scikit-learn.
    """
    classes = pairs.classes()
    true_IC, predicted_IC = pairs.matrix(pairs.labels, classes), pairs.matrix(pairs.predictions, classes)
    both_IC = true_IC.multiply(predicted_IC).tocsr()
    total_IC = true_IC + predicted_IC

    def statistic(weights_RI: Weights) -> Numbers:
        both_RC, total_RC = ((matrix_IC.T @ weights_RI.T).T for matrix_IC in (both_IC, total_IC))
        micro_R = 2 * both_RC.sum(1) / np.maximum(total_RC.sum(1), 1)
        macro_R = (2 * both_RC / np.maximum(total_RC, 1)).mean(1)
        return np.stack([micro_R, macro_R], axis=1)

    (found_2,) = statistic(np.ones((1, pairs.images), np.float32))
    drawn_R2 = bootstrap(statistic, pairs.strata_I, seed) if pairs.images > 1 else np.full((1, 2), np.nan)
    return {name: estimate(found_2[place], drawn_R2[:, place]) for place, name in enumerate(("micro", "macro"))}


def _average_precision(pairs: LabelPairs, seed: int) -> tuple[Estimate, dict[int, float]]:
    """Return the mean average precision of the listed classes that are a label of an image, and that of each."""
    from sklearn.metrics import average_precision_score  # costs time to import

    scores_IC, true_IC = pairs.scores()
    judged = [place for place in range(len(pairs.listed)) if true_IC[:, place].any()]
    if not judged:
        return UNDEFINED, {}
    found = {
        pairs.listed[place]: float(average_precision_score(true_IC[:, place], scores_IC[:, place])) for place in judged
    }
    rankings = [Ranking.of(scores_IC[:, place], true_IC[:, place]) for place in judged]

    def statistic(weights_RI: Weights) -> Numbers:
        found_R: Numbers = np.nanmean([ranking.average_precision(weights_RI) for ranking in rankings], axis=0)
        return found_R

    resamples = int(np.clip(MAX_CELLS / (len(judged) * pairs.images), MIN_RESAMPLES, RESAMPLES))
    drawn_R = bootstrap(statistic, pairs.strata_I, seed, resamples) if pairs.images > 1 else np.full(1, np.nan)
    return estimate(float(np.mean(list(found.values()))), drawn_R), found


def _labels(run: Run, pairs: LabelPairs, precisions: dict[int, float], *, whole: bool) -> list[dict[str, Any]]:
    """Count each class: images that have it, those recalled, and, where all predictions are known, its precision."""
    classes = pairs.classes()
    true_IC, predicted_IC = pairs.matrix(pairs.labels, classes), pairs.matrix(pairs.predictions, classes)
    known_C = np.asarray(_known(pairs, classes, true_IC).sum(0)).ravel()
    true_C, predicted_C, both_C = (
        np.asarray(matrix_IC.sum(0)).ravel() for matrix_IC in (true_IC, predicted_IC, true_IC.multiply(predicted_IC))
    )
    errors = _errors(pairs) if pairs.listed else {}
    rows = []
    for place, index in enumerate(map(int, classes)):
        true, predicted, both, known = (int(each[place]) for each in (true_C, predicted_C, both_C, known_C))
        low, high = wilson(both, known)
        row = {
            "class": index, "name": class_name(run, index), "images": true, "recall_images": known,
            "recall": both / known if known else None, "recall_low": low, "recall_high": high,
            "predicted": predicted if whole else None,
            "precision": both / predicted if whole and predicted else None,
            "f1": 2 * both / (true + predicted) if whole and true + predicted else None,
            "average_precision": precisions.get(index),
            "calibration_error": errors.get(index),
        }  # fmt: skip
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["images"], row["class"]))


def _known(pairs: LabelPairs, classes: Indices, true_IC: Any) -> Any:  # noqa: ANN401 - SciPy has no precise types
    """Return the true pairs of which it is known whether they are predicted: stored, or too unlikely to be."""
    stored = pairs.stored[pairs.stored["class"].isin(classes)]
    stored_IC = pairs.matrix(stored, classes)
    low_IC = true_IC.multiply((pairs.bounds_I <= pairs.threshold)[:, None])
    return (true_IC.multiply(stored_IC) + low_IC).astype(bool).astype(np.int64)


def _judged(pairs: LabelPairs) -> pd.DataFrame:
    """Return the stored pairs with whether each is true."""
    return pairs.stored.merge(pairs.labels.assign(true=1), on=["image", "class"], how="left").fillna({"true": 0})


def _calibration(pairs: LabelPairs) -> dict[str, Any]:
    """Compare confidences of pairs with the share of them that are true, bin by bin."""
    what = "the listed classes" if pairs.listed else "the classes that the run explained"
    bins = _bins(_judged(pairs))
    for row in bins:
        row["low"], row["high"] = wilson(round(row["accuracy"] * row["images"]), row["images"])
    return {"error": _error(bins), "bins": bins, "what": what}


def _errors(pairs: LabelPairs) -> dict[int, float | None]:
    """Return the calibration error of each class."""
    judged = _judged(pairs)
    return {index: _error(_bins(judged[judged["class"] == index])) for index in pairs.listed}


def _bins(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """Group pairs by confidence; `accuracy` is the share of true pairs, `images` their number."""
    numbers = np.minimum(np.floor(judged["confidence"] * BINS), BINS - 1).astype(int)
    grouped = judged.groupby(numbers)
    return [
        {"bin": int(number), "images": len(own), "mean_confidence": float(own["confidence"].mean()),
         "accuracy": float(own["true"].mean())}
        for number, own in grouped
    ]  # fmt: skip


def _error(bins: list[dict[str, Any]]) -> float | None:
    columns = ([row[name] for row in bins] for name in ("mean_confidence", "accuracy", "images"))
    return calibration_error(*columns)


def _sentences(pairs: LabelPairs, rules: TargetRules, *, whole: bool, calibrated: bool) -> list[str]:
    """Say what the rows do not tell, and which targets would tell it."""
    found = []
    if pairs.left_out and pairs.images:
        found.append(
            f"Images left out because their rows do not hold their labels (several or none): {pairs.left_out}. "
            "targets: labels stores all labels of an image, and so its recall; no run stores them with the "
            "confidences of other classes."
        )
    if not pairs.images:
        return [
            "F1, average precision and calibration need labels, and no row holds all labels of its image: there are "
            "none, or several. targets: labels stores all of them."
        ]
    if not whole:
        found.append(
            f"F1 and precision were not computed: in {pairs.truncated} of {pairs.images} images, classes that the run "
            f"did not explain may have a confidence above {pairs.threshold:g}, too. targets: {{above: 0.5}} or "
            "{classes: [...]} gives them."
        )
    if not pairs.listed:
        found.append(
            "Mean average precision was not computed: it needs the confidence of a class for every image, which "
            "targets: {classes: [...]} stores."
        )
    if not calibrated:
        chosen = "labels" if "labels" in rules.named or "label" in rules.named else "most likely classes"
        found.append(
            f"Calibration label by label was not computed: the run holds confidences of {chosen} only. targets: "
            "{classes: [...]} gives it, and {above: ...} that of the larger confidences."
        )
    return found
