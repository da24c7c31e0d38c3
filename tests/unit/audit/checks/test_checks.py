"""Checks on small runs: values, slices, refusals, and outputs that no name of the data can break."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import junitparser
import numpy as np
import pyarrow as pa
import pytest
import typer
import yaml
from handmade import PARTS, RunMaker
from typer.testing import CliRunner, Result

from jobs.check import check
from pipeline.audit.accuracy import accuracy
from pipeline.audit.checks.file import read_checks
from pipeline.audit.checks.judging import Verdict, judge
from pipeline.audit.checks.measuring import Measured
from pipeline.audit.checks.quantities import QUANTITIES
from pipeline.audit.checks.written import junit, markdown
from pipeline.audit.statistics import calibration_error, wilson
from pipeline.data.sources.shards import Failure
from pipeline.errors import ConfigError
from pipeline.explain.rows import Row, failure_row, to_table
from pipeline.results.query import open_run
from pipeline.storage.parts import Footer, publish_part
from pipeline.storage.run_folder import PartName
from schemas.explanation import described, explanation_schema
from schemas.manifest import RunIdentity, RunManifest

app = typer.Typer()
app.command()(check)

HOSTILE = (
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "=1+1",
    "a\"b'c",
    "a|b\n\x1b[2J",
    "\ud800",
    "]]>`@x` [y](z)",
)
IMAGES = 60


@dataclass(frozen=True)
class Sliced(RunMaker):
    """A run of one shard with 60 images of three classes and two hospitals; a third of class 2 is wrong."""

    shards: tuple[str, ...] = ("a.tar",)
    metrics: tuple[str, ...] = ("energy_in_box", "box_only_confidence")
    classes: tuple[str, ...] = ("cat", "dog", "owl")
    hospitals: tuple[str, ...] = ("north", "south")

    @property
    def identity(self) -> RunIdentity:
        own = super().identity
        return own.model_copy(update={"data": own.data | {"metadata": ["hospital"]}})

    @property
    def manifest(self) -> RunManifest:
        return super().manifest.model_copy(update={"classes": self.classes})

    @property
    def schema(self) -> Any:
        fields = [described(name, pa.float32(), "", name) for name in sorted(self.metrics)]
        return explanation_schema(fields, has_metadata=True)


def values_of(made: RunMaker) -> list[Row]:
    rows: list[Row] = []
    for image in range(IMAGES):
        for row in made.explained(PARTS[0], 0):
            label = image % 3
            wrong = label == 2 and image % 9 == 2
            key = f"{image:03d}"
            own = {"energy_in_box": image / IMAGES if image >= 10 else None, "box_only_confidence": 0.5}
            hospital = "north" if image < 50 else "south"
            rows.append(
                row | own | {
                    "image_key": key, "label": label, "predicted": 0 if wrong else label,
                    "confidence": 0.5 + image / 200, "metadata": [("hospital", hospital)],
                }
            )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Sliced(tmp_path_factory.mktemp("sliced") / "run").owned()
    return written(made, values_of(made))


def written(made: RunMaker, rows: list[Row]) -> Path:
    publish_part(made.store, to_table(rows, made.schema), Footer(made.manifest.run_id, 0, 0, True, IMAGES))
    return made.folder


def ran(folder: Path, tmp_path: Path, checks: object, *options: str) -> Result:
    path = tmp_path / "checks.yaml"
    path.write_text(checks if isinstance(checks, str) else yaml.safe_dump({"checks": checks}), encoding="utf-8")
    return CliRunner().invoke(app, [str(folder), str(path), *options])


def judged(folder: Path, tmp_path: Path, *checks: object) -> list[Verdict]:
    path = tmp_path / "checks.yaml"
    path.write_text(yaml.safe_dump({"checks": list(checks)}), encoding="utf-8")
    with open_run(folder) as run:
        return judge(run, read_checks(path, run), lambda: Measured(2.0))


def mistakes(folder: Path, tmp_path: Path, *checks: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        judged(folder, tmp_path, *checks)
    return [str(mistake) for mistake in caught.value.mistakes]


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


def test_the_exit_code_tells_a_spoilt_run_from_a_sound_one(folder: Path, tmp_path: Path) -> None:
    sound = ran(folder, tmp_path, ["accuracy >= 0.8"])
    assert sound.exit_code == 0, sound.stderr
    assert sound.stdout.splitlines()[-1] == "0 failed, 1 passed"
    spoilt = ran(folder, tmp_path, ["accuracy >= 0.8", "accuracy >= 0.99"], "--json")
    assert spoilt.exit_code == 6
    answer = json.loads(spoilt.stdout)
    assert [one["outcome"] for one in answer["checks"]] == ["passed", "failed"]
    assert answer["passed"] is False


def test_an_unfinished_run_is_said_to_be_one(maker: RunMaker, tmp_path: Path) -> None:
    maker.owned().publish(PARTS[0])
    ended = ran(maker.folder, tmp_path, ["images >= 1"])
    assert ended.exit_code == 0
    assert "note: the run is not complete (0 of 2 shards are finished)" in ended.stderr


def test_failures_are_counted_as_the_run_counts_them(small_run: RunMaker, tmp_path: Path) -> None:
    found = judged(small_run.folder, tmp_path, "failures == 3", "failure_rate == 0.5", "images == 5", "explained == 4")
    assert [one.outcome for one in found] == ["passed"] * 4


def test_a_junit_reader_reads_the_file(folder: Path, tmp_path: Path) -> None:
    checks = ["accuracy >= 0.99", "images > 0", {"check": "accuracy > 0", "by": "hospital"}]
    ended = ran(folder, tmp_path, checks, "--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md"))
    assert ended.exit_code == 6
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "j.xml"))
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (4, 1, 1, 0)
    cases = {case.name: case for case in suite}
    (failure,) = cases["accuracy >= 0.99"].result
    assert isinstance(failure, junitparser.Failure)
    assert failure.message.startswith("0.883333 is not >= 0.99")
    for words in ("value: 0.883333", "must be: >= 0.99", "images: 60", "SELECT shard, image_key, label_name"):
        assert words in failure.text
    (skipped,) = cases["accuracy > 0 by hospital [hospital = 'south']"].result
    assert isinstance(skipped, junitparser.Skipped)
    text = (tmp_path / "m.md").read_text(encoding="utf-8")
    assert text.startswith("## Checks failed: 1 failed, 2 passed, 1 skipped\n")
    assert "| ❌ failed | accuracy &gt;= 0.99 | 0.883333 | &gt;= 0.99 |" in text


def test_the_query_beside_a_failure_runs_and_finds_its_images(folder: Path, tmp_path: Path) -> None:
    checks: list[object] = [
        "accuracy > 1", "calibration_error < 0", "mean_confidence > 1", "failures > 0", "failure_rate > 0",
        "images < 0",
        "energy_in_box(gradcam) > 1", "box_only_confidence > 1", "degenerate(gradcam) > 0",
        {"check": "accuracy > 1", "by": "hospital", "min_images": 1, "where": {"label_name": ["cat", "owl"]}},
        {"check": "energy_in_box(gradcam) > 1", "by": "label_name", "min_images": 1},
        {"sql": "SELECT count(*) FROM images", "below": 0},
    ]  # fmt: skip
    found = judged(folder, tmp_path, *checks)
    assert {one.outcome for one in found} == {"failed"}
    with open_run(folder) as run:
        counts = {one.title: run.arrow(one.closer).num_rows for one in found}
    assert counts["accuracy > 1"] == 7
    assert counts["energy_in_box(gradcam) > 1 by label_name [label_name = 'owl']"] == 17


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text(tmp_path: Path, name: str) -> None:
    made = Sliced(tmp_path / "run", classes=("cat", "dog", name)).owned()
    folder = written(made, values_of(made))
    verdicts = judged(folder, tmp_path, {"check": "accuracy >= 0.9", "by": "label_name", "name": f"c {name!r}"})
    with open_run(folder) as run:
        failing = next(one for one in verdicts if one.outcome == "failed")
        assert run.arrow(failing.closer).num_rows == 7
    (suite,) = junitparser.JUnitXml.fromstring(junit(verdicts, name))
    assert (suite.tests, suite.failures) == (3, 1)
    text = markdown(verdicts, name, [name])
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 1 + len(verdicts)
    assert all(line.replace("\\\\", "").replace("\\|", "").count("|") == 8 for line in table)
    assert "<script" not in text.split("To look closer")[0]


def test_the_file_of_checks_is_not_written_over(folder: Path, tmp_path: Path) -> None:
    ended = ran(
        folder, tmp_path, ["accuracy >= 0.8"], "--junit", str(tmp_path / "checks.yaml"), "--markdown", "/no/x.md"
    )
    assert ended.exit_code == 2
    assert "is the file of checks" in ended.stderr
    assert "'/no' is not a folder" in ended.stderr


def test_findings_are_those_of_the_report_and_what_was_not_checked_is_said(small_run: RunMaker, tmp_path: Path) -> None:
    ended = ran(small_run.folder, tmp_path, ["findings == 0"])
    assert ended.exit_code == 6, ended.stderr
    assert "failed: findings == 0: 1 is not == 0; " in ended.stdout  # a shard lost images
    assert "without --model, the model was not run on changed images" in ended.stdout
    assert "not checked: Whether the maps depend on the model" in ended.stdout


def test_findings_of_a_run_of_failures_alone_are_no_pass(tmp_path: Path) -> None:
    class Broken(RunMaker):
        def rows(self, part: PartName) -> list[Row]:
            failure = Failure(self.image(part, 0), self.shards[part.shard], "decode", "corrupt", "")
            return [failure_row(failure, part.chunk)]

    ended = ran(
        Broken(tmp_path / "run").complete().folder, tmp_path, ["findings == 0", "accuracy > 0", "explained > 0"]
    )
    assert ended.exit_code == 6
    assert "failed: findings == 0: no number: no image was explained" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "3 failed"


def test_the_example_of_the_page_is_a_valid_file(folder: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[4] / "docs" / "checks.md").read_text(encoding="utf-8")
    (tmp_path / "checks.yaml").write_text(page.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    with open_run(folder) as run:
        verdicts = judge(run, read_checks(tmp_path / "checks.yaml", run), lambda: Measured(0.0))
    assert {one.check for one in verdicts if one.outcome == "failed"} == {"calibration_error <= 0.1"}
    for name in QUANTITIES:
        assert f"`{name}`" in page
