"""What checks write and end with, which no name of the data can break."""

import json
from pathlib import Path

import junitparser
import numpy as np
import pytest
from handmade import PARTS, RunMaker
from unit.audit.checks.sliced import HOSTILE, Sliced, judged, ran, values_of, written

from pipeline.audit import patches
from pipeline.audit.checks.file import read_checks
from pipeline.audit.checks.judging import judge
from pipeline.audit.checks.measuring import Measured
from pipeline.audit.checks.quantities import QUANTITIES
from pipeline.audit.checks.written import junit, markdown
from pipeline.data.sources.shards import Failure
from pipeline.explain.rows import Row, failure_row
from pipeline.results.query import open_run
from pipeline.storage.run_folder import PartName


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
    assert "the weights were not randomised" in ended.stdout


def test_an_untested_suspicion_is_no_number_of_findings(
    small_run: RunMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect = patches.Suspect(0, np.eye(14, dtype=bool), ("gradcam",))
    monkeypatch.setattr(patches, "screen", lambda *_: patches.Screened(2, [suspect], None, 0))
    ended = ran(small_run.folder, tmp_path, ["findings <= 5"])
    assert ended.exit_code == 6, ended.stderr
    assert "failed: findings <= 5: no number: 1 found, and the others are not known without the model; " in ended.stdout
    assert "suspected in 1 class, but the model was not run on changed images" in ended.stdout
    assert "(camatlas check RUN CHECKS --model)" in ended.stdout
    assert "--no-model" not in ended.stdout


def test_what_is_undecided_is_said_beside_a_check_that_passes(small_run: RunMaker, tmp_path: Path) -> None:
    ended = ran(small_run.folder, tmp_path, ["findings <= 5"])
    assert ended.exit_code == 0, ended.stderr
    assert "passed: findings <= 5: " in ended.stdout
    assert "undecided: " in ended.stdout


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
