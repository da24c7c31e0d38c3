"""Checks on small runs: values, slices and refusals."""

import math
from pathlib import Path

import numpy as np
import pytest
from handmade import RunMaker
from unit.audit.checks.sliced import IMAGES, Sliced, judged, mistakes, ran, values_of, written

from pipeline.audit.accuracy import accuracy
from pipeline.audit.statistics import calibration_error, wilson
from pipeline.results.query import open_run


def test_quantities_are_those_of_the_rows(folder: Path, tmp_path: Path) -> None:
    confidences = np.float32(0.5) + np.arange(IMAGES, dtype=np.float32) / 200
    right = IMAGES - 7
    expected = {
        "accuracy": right / IMAGES, "mean_confidence": confidences.mean(), "images": 60, "explained": 60,
        "labelled": 60,
        "failures": 0, "failure_rate": 0, "findings": 2, "energy_in_box(gradcam)": np.arange(10, 60).mean() / 60,
        "degenerate(scorecam)": 0, "box_only_confidence": 0.5,
    }  # fmt: skip
    found = judged(folder, tmp_path, *(f"{name} >= 0" for name in expected))
    for verdict, value in zip(found, expected.values(), strict=True):
        assert verdict.measured.value == pytest.approx(value, rel=1e-5), verdict.check
        assert verdict.outcome == "passed"
    accuracy = found[0].measured
    assert (accuracy.low, accuracy.high, accuracy.images) == (*wilson(right, IMAGES), IMAGES)
    energy = found[8].measured
    half = 1.959964 * np.std(np.arange(10, 60) / 60, ddof=1) / math.sqrt(50)
    assert energy.images == 50
    assert (energy.low, energy.high) == pytest.approx((energy.value - half, energy.value + half), rel=1e-4)


def test_the_calibration_error_is_that_of_the_report(folder: Path, tmp_path: Path) -> None:
    (found,) = judged(folder, tmp_path, "calibration_error < 1")
    with open_run(folder) as run:
        assert found.measured.value == pytest.approx(accuracy(run)["calibration_error"])
    assert calibration_error([], [], []) is None


def test_an_interval_keeps_the_maps_of_an_image_together(tmp_path: Path) -> None:
    """Each image twice gives the interval of each image once, not a narrower one."""
    made = Sliced(tmp_path / "run").owned()
    rows = values_of(made)
    twice = [row | {"target": target} for row in rows for target in (0, 1)]
    once = judged(written(made, rows), tmp_path, "energy_in_box(gradcam) > 0")[0].measured
    other = Sliced(tmp_path / "twice").owned()
    both = judged(written(other, twice), tmp_path, "energy_in_box(gradcam) > 0")[0].measured
    assert (both.value, both.images) == (pytest.approx(once.value), 50)
    assert (both.low, both.high) == pytest.approx((once.low, once.high))


def test_slices_are_judged_one_by_one_and_small_ones_are_reported(folder: Path, tmp_path: Path) -> None:
    found = judged(folder, tmp_path, {"check": "accuracy >= 0.9", "by": "label_name"})
    assert [(one.slice, one.outcome) for one in found] == [
        ("label_name = 'cat'", "passed"), ("label_name = 'dog'", "passed"), ("label_name = 'owl'", "failed"),
    ]  # fmt: skip
    found = judged(folder, tmp_path, {"check": "energy_in_box(gradcam) >= 0", "by": "hospital"})
    assert [(one.slice, one.outcome) for one in found] == [
        ("hospital = 'north'", "passed"), ("hospital = 'south'", "skipped"),
    ]  # fmt: skip
    assert found[1].sentence == "10 images with a value, fewer than min_images: 20"
    (only,) = judged(folder, tmp_path, {"check": "accuracy > 0", "where": {"hospital": "south", "label_name": ["cat"]}})
    assert only.measured.images == 3


def test_nothing_is_passed_silently_where_all_slices_are_too_small(folder: Path, tmp_path: Path) -> None:
    found = judged(folder, tmp_path, {"check": "accuracy >= 0", "by": "shard", "min_images": 100})
    assert [one.outcome for one in found] == ["skipped", "failed"]
    assert "nothing was judged" in found[1].sentence


def test_no_number_is_a_failed_check(folder: Path, small_run: RunMaker, tmp_path: Path) -> None:
    found = judged(
        folder, tmp_path,
        {"check": "accuracy >= 0", "where": {"hospital": "none"}},
        {"check": "energy_in_box(gradcam) >= 0", "where": {"hospital": "none"}},
        {"check": "failure_rate <= 1", "where": {"hospital": "none"}},
        {"check": "calibration_error <= 1", "where": {"hospital": "none"}},
        {"sql": "SELECT NULL::DOUBLE", "at_least": 0},
        {"sql": "SELECT 'nan'::DOUBLE", "at_most": 0},
        {"sql": "SELECT confidence FROM images", "at_most": 10},
        {"sql": "SELECT confidence FROM images WHERE false", "at_most": 10},
    )  # fmt: skip
    assert {one.outcome for one in found} == {"failed"}
    assert all(one.sentence.startswith("no number: ") for one in found)


def test_a_threshold_within_the_interval_is_said(folder: Path, tmp_path: Path) -> None:
    clear, unsure = judged(folder, tmp_path, "accuracy >= 0.5", "accuracy >= 0.85")
    assert (clear.outcome, clear.sentence) == ("passed", "")
    assert unsure.outcome == "passed"
    assert "the threshold 0.85 lies within the 95 % interval: 60 images" in unsure.sentence


def test_bounds_of_a_query(folder: Path, tmp_path: Path) -> None:
    ask = {"sql": "SELECT count(*) FROM images"}
    found = judged(
        folder, tmp_path, ask | {"at_least": 60}, ask | {"above": 60}, ask | {"at_most": 60}, ask | {"below": 60},
        ask | {"equals": 60}, ask | {"at_least": 10, "at_most": 20},
    )  # fmt: skip
    assert [one.outcome for one in found] == ["passed", "failed", "passed", "failed", "passed", "failed"]
    assert found[-1].sentence == "60 is not <= 20"


def test_all_mistakes_come_at_once_with_the_nearest_name(folder: Path, tmp_path: Path) -> None:
    found = mistakes(
        folder, tmp_path, "acuracy > 0", "energy_in_box > 0", "energy_in_box(gradcm) > 0", "accuracy(gradcam) > 0",
        "energy_in_box(gradcam, lable) > 0", "top5_accuracy > 0", "insertion(gradcam) > 0", 7, {},
        {"check": "accuracy > 0", "by": "hospitl", "where": {"label_name": "catt", "shard": False}, "attleast": 1},
        {"sql": "SELECT bogus FROM images", "at_least": math.nan}, {"sql": "SELECT 1, 2", "equals": 1},
        {"sql": "SELECT 'text'", "equals": 1}, {"sql": "COPY images TO 'x.csv'", "equals": 1}, {"sql": "SELECT 1"},
        {"sql": "SELECT INTERVAL 1 DAY", "equals": 1}, {"sql": "SELECT 1", "check": "accuracy > 0", "equals": 1},
        {"check": "findings == 0", "by": "shard"}, {"check": "accuracy > 0", "at_least": 1},
        {"check": "images > 0", "min_images": 0}, "__import__('os').system('true') >= 0",
        "failures == 0", "failures == 0",
    )  # fmt: skip
    for words in (
        "checks[1]: the run has no 'acuracy' (did you mean 'accuracy'?)", "checks[2]: 'energy_in_box' needs a method",
        "checks[3]: the run has no method 'gradcm' (did you mean 'gradcam'?)", "checks[4]: 'accuracy' stands without",
        "checks[5]: 'gradcam' has no maps of the target rule 'lable'", "checks[6]: unknown 'top5_accuracy'",
        "checks[7]: the run has no 'insertion'", "checks[8]: 7 is neither", "checks[9]: needs either check or sql",
        "checks[10].by: images have no column 'hospitl' (did you mean 'hospital'?)",
        "checks[10].where.label_name: there is no 'catt' (did you mean 'cat'?)",
        "checks[10].where.shard: False is not a text", "checks[10]: unknown key 'attleast' (did you mean 'at_least'?)",
        "checks[11].at_least: nan is not a finite number", 'checks[11].sql: Binder Error: Referenced column "bogus"',
        "checks[12].sql: gives", "checks[13].sql: gives", "checks[14].sql: the query must be exactly one SELECT",
        "checks[15]: a query needs a bound", "checks[16].sql: gives", "checks[17]: needs either check or sql",
        "checks[18]: findings are of the whole run", "checks[19]: at_least, at_most", "checks[20].min_images: ",
        "checks[21]: the run has no '__import__'",
        "checks: two checks are called 'failures == 0'",
    ):  # fmt: skip
        assert [line for line in found if line.startswith(words)], words


@pytest.mark.parametrize(
    "text", ["", "- accuracy > 0", "checks: []", "checks: 3", "{", "checks: [!!python/object/apply:os.system [true]]",
             "cheks: [accuracy > 0]", "checks: [accuracy > 0]\nmin_image: 3"],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(folder: Path, tmp_path: Path, text: str) -> None:
    ended = ran(folder, tmp_path, text)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "CHECKS" in ended.stderr


def test_several_target_rules_must_be_named(tmp_path: Path) -> None:
    made = Sliced(tmp_path / "run").owned()
    rules = {"predicted": 0, "label": 1}
    rows = [row | {"target_rule": rule, "target": rules[rule]} for row in values_of(made) for rule in rules]
    folder = written(made, rows)
    (found,) = mistakes(folder, tmp_path, "energy_in_box(gradcam) > 0")
    assert found.endswith("(name one: energy_in_box(gradcam, label) or energy_in_box(gradcam, predicted))")
    assert judged(folder, tmp_path, "energy_in_box(gradcam, label) > 0")[0].measured.images == 50
