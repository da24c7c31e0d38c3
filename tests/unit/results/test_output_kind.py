"""Right and wrong by kind of outputs, in a run and in an atlas."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from judged import Case, JudgedRun, binary_case

from pipeline.results.atlas import open_atlas
from pipeline.results.query import open_run
from pipeline.results.verify import verify

CORRECT = "SELECT correct FROM images ORDER BY image_key"


def several(predicted: int, targets: Mapping[int, str], label: int | None = None) -> Case:
    return Case(label, predicted, 0.9, {index: (rule, 0.7, 1.0) for index, rule in targets.items()})


def correct_of(run: JudgedRun) -> list[bool | None]:
    with open_run(run.complete().folder) as opened:
        found: list[bool | None] = opened.arrow(CORRECT)["correct"].to_pylist()
    return found


@pytest.mark.parametrize("kind", ["softmax", "binary", "probabilities"])
def test_where_one_class_is_true_the_prediction_must_be_the_label(tmp_path: Path, kind: str) -> None:
    cases = [binary_case(1, 2.0), binary_case(0, 2.0), binary_case(None, 2.0)]
    run = JudgedRun(tmp_path / "run", kind=kind, cases=cases)
    assert correct_of(run) == [True, False, None]
    assert verify(run.store).problems == []


@pytest.mark.parametrize(("kind", "independent"), [("sigmoid", False), ("probabilities", True)])
def test_with_independent_labels_it_is_unknown_unless_all_labels_are_stored(
    tmp_path: Path, kind: str, independent: bool
) -> None:
    cases = [several(2, {2: "predicted"}, label=2), several(2, {2: "predicted"}, label=0), several(2, {2: "predicted"})]
    assert correct_of(JudgedRun(tmp_path / "run", kind=kind, independent=independent, cases=cases)) == [
        True, False, None,
    ]  # fmt: skip


def test_explained_labels_are_all_labels(tmp_path: Path) -> None:
    cases = [several(2, {0: "label", 2: "label"}), several(1, {0: "label", 2: "label"}), several(1, {1: "label"}, 1)]
    assert correct_of(JudgedRun(tmp_path / "a", kind="sigmoid", rule="labels", cases=cases)) == [True, False, True]
    also = [several(1, {0: "label", 2: "label", 1: "predicted"})]
    assert correct_of(JudgedRun(tmp_path / "b", kind="sigmoid", rule="labels,predicted", cases=also)) == [False]


def test_a_predicted_class_may_hide_that_it_is_a_label(tmp_path: Path) -> None:
    cases = [several(2, {2: "predicted", 0: "label", 1: "label"})]
    assert correct_of(JudgedRun(tmp_path / "run", kind="sigmoid", rule="predicted,labels", cases=cases)) == [None]


def test_images_without_a_target_are_not_judged(tmp_path: Path) -> None:
    cases = [Case(1, None, None, {}), several(1, {1: "above"}, label=1)]
    run = JudgedRun(tmp_path / "run", kind="sigmoid", rule="above 0.5", cases=cases)
    assert correct_of(run) == [None, True]
    assert verify(run.store).problems == []


def test_raw_outputs_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    cases = [Case(0, None, None, {0: ("predicted", None, 1.5)}), Case(35, None, None, {0: ("predicted", None, 1.5)})]
    run = JudgedRun(tmp_path / "run", kind="raw", cases=cases)
    assert correct_of(run) == [None, None]
    assert verify(run.store).problems == []


def test_an_atlas_judges_each_run_by_its_own_outputs(tmp_path: Path) -> None:
    case = [several(2, {0: "label", 2: "label"}), several(1, {1: "label"}, 1)]
    for name, kind in (("one", "sigmoid"), ("two", "softmax"), ("three", "raw")):
        JudgedRun(tmp_path / name, kind=kind, rule="labels", cases=case).complete()
    with open_atlas(tmp_path) as atlas:
        query = "SELECT folder, correct FROM images JOIN runs USING (run) ORDER BY folder, image_key"
        found = atlas.arrow(query).to_pylist()
    assert [(row["folder"], row["correct"]) for row in found] == [
        ("one", True), ("one", True), ("three", None), ("three", None), ("two", None), ("two", True),
    ]  # fmt: skip
