"""camatlas rank: its report, JSON, CSV and picture, and the mistakes that it refuses."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from ranked import Table, valued_run
from records import judged, record_fields, written
from typer.testing import CliRunner, Result

from jobs.rank import rank

app = typer.Typer()
app.command()(rank)


def table_of(seed: int) -> Table:
    """Three methods and a control: gradcam is the best but for average_drop, by which nothing beats the control."""
    random = np.random.default_rng(seed)
    order = {
        "insertion": (4, 3, 2, 1),
        "road": (4, 3, 2, 1),
        "average_drop": (4, 3, 2, 1),
        "energy_in_box": (4, 2, 3, 1),
    }
    methods = ("gradcam", "scorecam", "fem", "shuffled_gradcam")
    return {
        metric: {
            method: (value + random.normal(0, 0.1, 8)).tolist() for method, value in zip(methods, values, strict=True)
        }
        for metric, values in order.items()
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs of different models."""
    folder = tmp_path_factory.mktemp("runs")
    return [valued_run(folder / name, table_of(seed), model=name) for seed, name in enumerate(("resnet", "vit"))]


@pytest.fixture(scope="module")
def report(runs: list[str]) -> list[str]:
    """The lines of the report."""
    ended = run_rank(*runs)
    assert ended.exit_code == 0
    return ended.stdout.splitlines()


def run_rank(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def words_of(report: list[str], start: str, place: int = 0) -> list[str]:
    return [line for line in report if line.startswith(start)][place].split()


def test_the_report_begins_with_the_runs(report: list[str]) -> None:
    assert report[0] == "4 methods ranked by 4 metrics, over 2 runs of 2 models"
    assert words_of(report, "run") == ["run", "model", "images", "targets", "precision", "state"]
    assert words_of(report, "vit") == ["vit", "vit", "8", "predicted", "fp32", "complete"]


def test_methods_are_listed_best_first_with_their_spread(report: list[str]) -> None:
    assert words_of(report, "method") == [
        "method", "all", "metrics", "95", "%", "sd", "reliable", "metrics", "faithfulness", "localisation",
    ]  # fmt: skip
    assert words_of(report, "gradcam") == [
        "gradcam", "★", "1.8", "(1.8–1.8)", "1.8–1.8", "0.0", "★", "1.0", "(1.0–1.0)", "★", "2.0", "(2.0–2.0)",
        "★", "1.0", "(1.0–1.0)",
    ]  # fmt: skip
    assert words_of(report, "shuffled_gradcam")[:3] == ["shuffled_gradcam", "(control)", "3.2"]
    assert words_of(report, "W of")[4:8] == ["0.19", "(chance", "0.25)", "0.78"]


def test_each_metric_has_its_reliability(report: list[str]) -> None:
    assert words_of(report, "insertion") == [
        "insertion", "faithfulness", "higher", "yes", "65", "%,", "61", "%", "8", "1.00", "gradcam",
    ]  # fmt: skip
    assert words_of(report, "average_drop")[2:7] == ["lower", "no:", "at", "chance", "level"]
    assert words_of(report, "average_drop")[-1] == "shuffled_gradcam"


def test_conclusions_are_sentences(report: list[str]) -> None:
    said = [line for line in report if line.startswith("* ")]
    assert said[0] == "* by all 4 metrics, gradcam has the best mean rank, 1.8 (95 % interval 1.8 to 1.8)"
    assert said[1].startswith("* by the 3 reliable metrics, gradcam has the best mean rank, 1.0")
    assert "* by average_drop, no method is reliably better than the control shuffled_gradcam: it shows nothing in " \
        "favour of any" in said  # fmt: skip
    assert any(line.startswith("* average_drop and insertion disagree: tau -1.00") for line in said)


def test_json_is_one_object(runs: list[str]) -> None:
    ended = run_rank(*runs, "--json")
    found = json.loads(ended.stdout)
    assert [one["run"] for one in found["runs"]] == ["resnet", "vit"]
    first = found["methods"][0]
    assert (first["method"], first["groups"]["all metrics"]["value"], first["metrics"]["road"]["by_run"]) == (
        "gradcam", 1.75, [1, 1],
    )  # fmt: skip
    about = {one["metric"]: one for one in found["metrics"]}
    assert about["insertion"]["images"] == [8, 8]
    assert (about["insertion"]["carries"], about["average_drop"]["carries"]) == (True, False)
    assert about["insertion"]["agreement_of_runs"] == {"w": 1, "by_run": [], "judges": 2, "by_chance": 0.5}
    assert found["agreement"]["faithfulness"]["judges"] == 3
    assert len(found["conclusions"]) >= 4


def test_csv_has_a_row_for_each_method_and_notes_go_to_stderr(runs: list[str], tmp_path: Path) -> None:
    other = valued_run(tmp_path / "half", table_of(2), model="half", chunks=2)
    ended = run_rank(runs[0], other, "--csv")
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert [row["method"] for row in rows] == ["gradcam", "fem", "scorecam", "shuffled_gradcam"]
    assert (rows[0]["all_metrics"], rows[0]["by_road"], rows[3]["is_control"]) == ("1.75", "1.0", "True")
    assert "note: half is incomplete: 1 of 2 chunks" in ended.stderr


def test_the_result_is_the_same_each_time(runs: list[str], report: list[str]) -> None:
    assert run_rank(*runs).stdout.splitlines() == report


def test_one_run_has_no_spread(runs: list[str]) -> None:
    lines = run_rank(runs[0]).stdout.splitlines()
    assert lines[0] == "4 methods ranked by 4 metrics, over 1 run of 1 model"
    assert "W of the models" not in "\n".join(lines)
    assert words_of(lines, "gradcam")[:4] == ["gradcam", "★", "1.8", "1.8–1.8"]


def test_another_record_says_what_is_reliable(runs: list[str], tmp_path: Path) -> None:
    record = written(tmp_path / "judge.json", record_fields(average_drop=judged()))
    lines = run_rank(*runs, "--judged", str(record)).stdout.splitlines()
    assert words_of(lines, "average_drop")[3] == "yes"
    assert words_of(lines, "insertion")[3:6] == ["no:", "not", "judged"]


def test_the_picture_shows_every_method_and_metric(runs: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ranks.svg"
    ended = run_rank(*runs, "--out", str(path))
    assert (ended.exit_code, ended.stderr) == (0, f"picture: {path}\n")
    svg = path.read_text(encoding="utf-8")
    for word in ("shuffled_gradcam (control)", "energy_in_box", "reliable", "faithfulness", "1.8", "resnet, vit"):
        assert f">{word}" in svg


def test_the_picture_can_be_a_png(runs: list[str], tmp_path: Path) -> None:
    path = tmp_path / "ranks.png"
    assert run_rank(runs[0], "--out", str(path), "--json").exit_code == 0
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
        colours = image.convert("RGB").getcolors(1 << 20) or []
    assert len(colours) > 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--csv", "--json"), "--csv, --json: only one of them"),
        (("--out", "ranks.pdf"), "--out: 'ranks.pdf' has an unknown suffix (use .svg or .png)"),
        (("--methods", "gradcamm,fem"), "--methods: 'gradcamm' is not in all runs (did you mean 'gradcam'?)"),
        (("--judged", "nothing.json"), "--judged: cannot read"),
        (("--out", "no/folder/ranks.svg"), "--out: cannot write 'no/folder/ranks.svg': No such file or directory"),
    ],
)
def test_mistakes_are_refused(runs: list[str], arguments: tuple[str, ...], message: str) -> None:
    ended = run_rank(*runs, *arguments)
    assert ended.exit_code == 2
    assert message in ended.stderr


def test_what_is_no_run_is_refused_with_all_mistakes_at_once(runs: list[str], tmp_path: Path) -> None:
    ended = run_rank(str(tmp_path), str(Path(runs[0]).parent))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "is not a run folder: it has no run.json" in ended.stderr
    assert f"is a folder of runs, not a run (name its runs: {Path(runs[0]).parent}/*)" in ended.stderr


def test_a_damaged_run_is_refused(tmp_path: Path) -> None:
    path = Path(valued_run(tmp_path / "run", table_of(0)))
    (path / "part-00000-000.parquet").write_bytes(b"nothing")
    assert run_rank(str(path)).exit_code == 4
