"""Readings compared on a finished run: halves of the images, paired differences, intervals, and correlations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from handmade import RunMaker
from inline import publish_all
from scipy.stats import t as student
from typer.testing import CliRunner

from pipeline.errors import ConfigError
from pipeline.judge.readings import BASE, CORRELATION, as_table, compare, half_of, main
from pipeline.maps.similarity import enlarged
from pipeline.results.query import Run, open_run
from pipeline.truth.shards import open_network, run_file, write_scenes

METHODS: list[Any] = [
    "gradcam",
    "integrative_cam",
    {"increment_cam": {"channels": 4}},
    {"increment_cam": {"preset": "first_reading", "channels": 4, "as": "increment_first"}},
]
METRICS = ["mass", "rank", "deletion_curve"]

app = typer.Typer()
app.command()(main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten scenes with exact values."""
    scenes, network = tmp_path_factory.mktemp("readings") / "scenes", open_network("plain")
    write_scenes(scenes, network, 10, 0, 10)
    fields = run_file(scenes, network)
    fields["explain"] |= {"methods": METHODS, "metrics": METRICS}
    return publish_all(fields | {"compute": {"device": "cpu", "batch": 16}})


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """The run, open."""
    return open_run(folder)


def test_halves_depend_on_the_key_alone_and_are_stable() -> None:
    assert [half_of(f"image-{n}") for n in range(6)] == [
        "choose", "choose", "report", "report", "report", "choose",
    ]  # fmt: skip
    shares = np.mean([half_of(str(n)) == "choose" for n in range(2000)])
    assert 0.45 < shares < 0.55


def test_every_image_is_in_one_half(run: Run) -> None:
    counts = [compare(run, half).images for half in ("choose", "report")]
    assert sum(counts) == 10
    assert min(counts) >= 2


@pytest.mark.parametrize("half", ["choose", "report"])
def test_means_and_paired_differences_are_those_of_the_rows(run: Run, half: Any) -> None:
    found = compare(run, half)
    assert list(found.methods) == ["gradcam", "increment_cam", "increment_first", "integrative_cam"]
    chosen = [row for row in run.table().to_pylist() if half_of(row["image_key"]) == half]
    rows = {(row["image_key"], row["method"]): row for row in chosen}
    keys = sorted({key for key, _ in rows})
    for method, estimates in found.methods.items():
        assert list(estimates) == ["mass", "rank", CORRELATION]
        for metric in ("mass", "rank"):
            own, base = (np.array([rows[key, name][metric] for key in keys], np.float64) for name in (method, BASE))
            assert estimates[metric].mean == pytest.approx(own.mean())
            assert estimates[metric].difference == pytest.approx((own - base).mean())
            spread = (own - base).std(ddof=1) / len(keys) ** 0.5
            assert estimates[metric].half_width == pytest.approx(student.ppf(0.975, len(keys) - 1) * spread)
            assert estimates[metric].images == len(keys)
        maps = [[run.maps(f"method = '{name}' AND image_key = '{key}'") for key in keys] for name in (method, BASE)]
        alike = [
            np.corrcoef(enlarged(one).ravel(), enlarged(base).ravel())[0, 1] for one, base in zip(*maps, strict=True)
        ]
        assert estimates[CORRELATION].mean == pytest.approx(np.mean(alike), abs=1e-6)
    assert found.methods[BASE]["mass"].difference == 0


def test_both_halves_of_all_runs_are_printed(folder: Path, run: Run) -> None:
    result = CliRunner().invoke(app, [str(folder), str(folder)])
    assert result.exit_code == 0
    tables = result.stdout.split("\n\n")
    assert tables[0] == as_table(compare(run, "choose"))
    assert len(tables) == 4
    assert [line.split()[0] for line in tables[0].splitlines()[1:]] == ["method", *compare(run, "choose").methods]
    one = json.loads(CliRunner().invoke(app, [str(folder), "--half", "report", "--json"]).stdout)["comparisons"]
    assert [each["half"] for each in one] == ["report"]
    assert one[0]["methods"]["integrative_cam"]["mass"]["images"] == one[0]["images"]


def test_what_cannot_be_compared_is_refused(folder: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(folder), "--half", "best"])
    assert result.exit_code == 2
    assert "one of choose, report" in result.stderr
    other = RunMaker(tmp_path / "run", methods=("scorecam", "iscam")).complete()
    with pytest.raises(ConfigError, match="has no 'gradcam' to compare with"):
        compare(open_run(other.folder), "choose")


def test_images_that_are_classified_wrongly_are_left_out(tmp_path: Path) -> None:
    """Of four explained images, three have another label than their prediction; the fourth has none and counts."""
    made = RunMaker(tmp_path / "run").complete()
    with open_run(made.folder) as opened:
        found = {one.images: one for one in (compare(opened, half) for half in ("choose", "report"))}
    assert set(found) == {0, 1}
    assert "none" in as_table(found[0])
    assert found[1].methods["scorecam"]["average_drop"].images == 1
    assert found[1].methods["scorecam"]["average_drop"].half_width is None
