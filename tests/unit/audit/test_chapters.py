"""The chapters on outputs of handmade runs: numbers of scikit-learn and by hand, and what rows do not tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged import Case, JudgedRun, binary_case, listed_case, sigmoid
from sklearn import metrics

from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.results.query import open_run

RANDOM = np.random.default_rng(3)


def facts_of(run: JudgedRun) -> dict[str, Any]:
    """Return the facts, with the page under `page`."""
    with open_run(run.complete().folder) as opened:
        found = audit(opened, opened, ask_model=False)
        for group in found.facts["gallery"]:
            if group["sql"]:
                keys = opened.arrow(group["sql"])["image_key"].to_pylist()
                assert keys == [image["image_key"] for image in group["images"]]
    return found.facts | {"page": render(found.facts, found.pictures)}


def test_a_run_with_softmax_has_no_chapter(tmp_path: Path) -> None:
    assert "outputs" not in facts_of(JudgedRun(tmp_path / "run", cases=[binary_case(1, 2.0), binary_case(0, 1.0)]))


def test_probabilities_that_sum_to_one_are_judged_as_softmax_is(tmp_path: Path) -> None:
    facts = facts_of(
        JudgedRun(tmp_path / "run", kind="probabilities", cases=[binary_case(1, 2.0), binary_case(0, 1.0)])
    )
    assert facts["accuracy"]["overall"]["rows"][0]["accuracy"] == 0.5
    assert set(facts["outputs"]) == {"kind", "independent", "absent"}


def test_binary_scores_are_those_of_scikit_learn(tmp_path: Path) -> None:
    labels = (RANDOM.random(60) < 0.4).astype(int)
    logits = RANDOM.normal(size=60) + labels
    cases = [
        binary_case(int(label), float(z), number % 2)
        for number, (label, z) in enumerate(zip(labels, logits, strict=True))
    ]
    facts = facts_of(JudgedRun(tmp_path / "run", kind="binary", cases=[*cases, binary_case(None, 3.0)]))
    chapter = facts["outputs"]["binary"]
    z = logits.astype(np.float32)
    assert (chapter["images"], chapter["positive"]) == (60, labels.sum())
    assert chapter["auroc"]["value"] == pytest.approx(metrics.roc_auc_score(labels, z), abs=1e-6)
    assert chapter["average_precision"]["value"] == pytest.approx(metrics.average_precision_score(labels, z), abs=1e-6)
    assert chapter["auroc"]["low"] < chapter["auroc"]["value"] < chapter["auroc"]["high"]
    for row in chapter["thresholds"]:
        predicted = np.array([sigmoid(float(value)) for value in z]) > row["threshold"]
        assert row["recall"] == pytest.approx(metrics.recall_score(labels, predicted), abs=1e-6)
        assert row["f1"] == pytest.approx(metrics.f1_score(labels, predicted), abs=1e-6)
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted), abs=1e-6)
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    assert facts["accuracy"]["overall"]["rows"][0]["accuracy"] == pytest.approx(((z > 0) == labels).mean())
    assert "AUROC" in facts["page"]


def test_binary_thresholds_by_hand(tmp_path: Path) -> None:
    cases = [binary_case(0, -2.0), binary_case(1, -1.0), binary_case(0, 0.5), binary_case(1, 3.0)]
    chapter = facts_of(JudgedRun(tmp_path / "run", kind="binary", cases=cases))["outputs"]["binary"]
    (half,) = [row for row in chapter["thresholds"] if row["threshold"] == 0.5]
    counts = [half[f"{kind}_{side}"] for kind in ("true", "false") for side in ("positive", "negative")]
    assert counts == [1, 1, 1, 1]
    assert chapter["auroc"]["value"] == 0.75


@pytest.mark.parametrize(("label", "reason"), [(1, "all labels are 'dog'"), (None, "need labels")])
def test_a_binary_run_of_one_class_says_so(tmp_path: Path, label: int | None, reason: str) -> None:
    facts = facts_of(JudgedRun(tmp_path / "run", kind="binary", cases=[binary_case(label, z) for z in (-1.0, 2.0)]))
    assert reason in facts["outputs"]["binary"]["sentence"]
    assert reason in facts["page"].replace("&#39;", "'")


def test_scores_of_listed_labels_are_those_of_scikit_learn(tmp_path: Path) -> None:
    labels = RANDOM.integers(0, 3, 80)
    logits = RANDOM.normal(size=(80, 3)) + 2 * np.eye(3)[labels] - 0.5
    cases = [listed_case(int(label), list(map(float, row))) for label, row in zip(labels, logits, strict=True)]
    cases.append(listed_case(None, [1.0, 1.0, 1.0]))
    facts = facts_of(JudgedRun(tmp_path / "run", kind="sigmoid", rule="classes 0,1,2", cases=cases))
    chapter = facts["outputs"]["multilabel"]
    true, scores = np.eye(3, dtype=int)[labels], (1 / (1 + np.exp(-logits))).astype(np.float32)
    predicted = (scores > 0.5).astype(int)
    assert (chapter["images"], chapter["left_out"]) == (80, 1)
    for average in ("micro", "macro"):
        found = chapter["f1"][average]
        assert found["value"] == pytest.approx(metrics.f1_score(true, predicted, average=average), abs=1e-6)
        assert found["low"] < found["value"] < found["high"]
    mean = metrics.average_precision_score(true, scores, average="macro")
    assert chapter["mean_average_precision"]["value"] == pytest.approx(mean, abs=1e-6)
    for row in chapter["labels"]:
        own = true[:, row["class"]], predicted[:, row["class"]]
        assert row["recall"] == pytest.approx(metrics.recall_score(*own), abs=1e-6)
        assert row["precision"] == pytest.approx(metrics.precision_score(*own), abs=1e-6)
        error = _calibration_error(scores[:, row["class"]], own[0])
        assert row["calibration_error"] == pytest.approx(error, abs=1e-6)
    assert any("several or none): 1." in sentence for sentence in chapter["sentences"])
    assert "no confusions" in facts["page"]


def _calibration_error(scores: Any, true: Any) -> float:
    bins = np.minimum((scores * 15).astype(int), 14)
    gaps = [(bins == b).mean() * abs(scores[bins == b].mean() - true[bins == b].mean()) for b in np.unique(bins)]
    return float(sum(gaps))


def test_labels_give_recall_but_neither_f1_nor_calibration(tmp_path: Path) -> None:
    cases = [
        Case(None, 1, 0.9, {0: ("label", 0.6, 0.4), 1: ("label", 0.9, 2.2)}),
        Case(None, 2, 0.8, {0: ("label", 0.3, -0.8), 1: ("label", 0.7, 0.8)}),
    ]
    chapter = facts_of(JudgedRun(tmp_path / "run", kind="sigmoid", rule="labels", cases=cases))["outputs"]["multilabel"]
    recalls = {row["class"]: (row["recall"], row["recall_images"]) for row in chapter["labels"] if row["images"]}
    assert recalls == {0: (0.5, 2), 1: (1.0, 2)}
    assert chapter["f1"]["micro"]["value"] is chapter["mean_average_precision"]["value"] is None
    assert chapter["calibration"]["bins"] == []
    said = " ".join(chapter["sentences"])
    assert "in 2 of 2 images, classes that the run did not explain may have a confidence above 0.5" in said
    assert "{classes: [...]}" in said


def test_predictions_above_a_threshold_give_f1(tmp_path: Path) -> None:
    above = ("above", 0.8, 1.4)
    cases = [
        Case(0, 0, 0.8, {0: above}),
        Case(0, 0, 0.8, {0: above, 1: above}),
        Case(1, None, None, {}),  # no class is above the threshold
        Case(None, 1, 0.8, {1: above}),  # several labels or none: left out
    ]
    facts = facts_of(JudgedRun(tmp_path / "run", kind="sigmoid", rule="above 0.4", cases=cases))
    chapter = facts["outputs"]["multilabel"]
    assert (chapter["images"], chapter["left_out"]) == (3, 1)
    true, predicted = np.array([[1, 0], [1, 0], [0, 1]]), np.array([[1, 0], [1, 1], [0, 0]])
    for average in ("micro", "macro"):
        expected = metrics.f1_score(true, predicted, average=average)
        assert chapter["f1"][average]["value"] == pytest.approx(expected)
    (bin_of_all,) = chapter["calibration"]["bins"]
    assert (bin_of_all["images"], bin_of_all["accuracy"]) == (3, pytest.approx(2 / 3))
    assert facts["shards"]["worst"]["rows"][0]["failed"] == 0


@pytest.mark.parametrize(("confidence", "known"), [(0.4, True), (0.9, False)])
def test_the_most_likely_class_bounds_the_others(tmp_path: Path, confidence: float, known: bool) -> None:
    cases = [Case(0, 1, confidence, {1: ("predicted", confidence, 0.0)})] * 2
    chapter = facts_of(JudgedRun(tmp_path / "run", kind="sigmoid", cases=cases))["outputs"]["multilabel"]
    assert (chapter["f1"]["micro"]["value"] is not None) == known


def test_a_regression_is_judged_by_its_residuals(tmp_path: Path) -> None:
    labels = RANDOM.integers(20, 60, 50)
    outputs = (labels + RANDOM.normal(2, 5, 50)).astype(np.float32)
    cases = [Case(int(y), None, None, {0: ("predicted", None, float(z))}) for y, z in zip(labels, outputs, strict=True)]
    run = JudgedRun(tmp_path / "run", kind="raw", cases=cases, metrics=())
    facts = facts_of(run)
    chapter = facts["outputs"]["regression"]
    assert chapter["r2"]["value"] == pytest.approx(metrics.r2_score(labels, outputs), abs=1e-6)
    assert chapter["r2"]["low"] < chapter["r2"]["value"] < chapter["r2"]["high"]
    assert chapter["mean_absolute"]["value"] == pytest.approx(metrics.mean_absolute_error(labels, outputs), abs=1e-5)
    assert chapter["mean_residual"]["value"] == pytest.approx((outputs - labels).mean(), abs=1e-5)
    assert sum(row["images"] for row in chapter["histogram"]) == 50
    assert [group["title"] for group in facts["gallery"]] == [
        "Largest residuals",
        "Largest outputs",
        "Smallest outputs",
    ]
    assert facts["classes"]["rows"] == facts["strategies"] == facts["accuracy"]["confusions"]["rows"] == []
    assert facts["accuracy"]["overall"]["rows"][0]["accuracy"] is None
    unchecked = " ".join(facts["unchecked"])
    assert "no prediction is right or wrong" in unchecked
    assert "no predicted class that another image could change" in unchecked
    assert "--no-model" not in unchecked
    assert "predictions are not compared" in facts["page"]
    assert "The prediction differs" not in facts["page"]


def test_r2_by_hand(tmp_path: Path) -> None:
    cases = [Case(y, None, None, {0: ("predicted", None, z)}) for y, z in ((0, 1.0), (2, 2.0), (4, 3.0))]
    chapter = facts_of(JudgedRun(tmp_path / "run", kind="raw", cases=cases, metrics=()))["outputs"]["regression"]
    assert chapter["r2"]["value"] == pytest.approx(1 - 2 / 8)


@pytest.mark.parametrize(
    ("rule", "labels", "reason"),
    [
        ("classes 0", (1, 2), "do not tell which of them"),
        ("predicted", (None, None), "fewer than two"),
        ("predicted", (3, 3), ""),
    ],
)
def test_a_regression_that_cannot_be_judged_says_why(
    tmp_path: Path, rule: str, labels: tuple[int | None, ...], reason: str
) -> None:
    how = ("listed" if rule != "predicted" else "predicted", None, 1.0)
    cases = [Case(label, None, None, {0: how}) for label in labels]
    facts = facts_of(JudgedRun(tmp_path / "run", kind="raw", rule=rule, cases=cases, metrics=()))
    assert facts["outputs"]["regression"]["r2"]["value"] is None
    assert reason in facts["outputs"]["regression"]["sentence"]
    assert (reason or "all labels are equal") in facts["page"]
