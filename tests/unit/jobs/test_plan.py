"""camatlas plan: table and JSON; reports all mistakes at once and writes nothing."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner, Result

from jobs.plan import _maps, plan
from jobs.support.console import amount
from pipeline.demo.data import run_file, write_demo
from pipeline.planning import planner

app = typer.Typer()
app.command()(plan)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run file for six scenes."""
    folder = tmp_path_factory.mktemp("plan")
    path = write_demo(folder, scenes=6, scenes_per_shard=3)
    explain = {"methods": ["gradcam", "scorecam"], "metrics": ["average_drop", "increase"]}
    path.write_text(yaml.safe_dump(run_file(folder) | {"explain": explain, "compute": {"device": "cpu"}}))
    return path


def run_plan(*arguments: object) -> Result:
    before = torch.get_num_threads()
    try:
        return CliRunner().invoke(app, [*map(str, arguments), "--probe-seconds", "0"])
    finally:
        torch.set_num_threads(before)


def test_it_prints_a_table_and_totals(demo: Path) -> None:
    shown = run_plan(demo, "--price", 2.5, "--workers", 3)
    assert shown.exit_code == 0, shown.output
    lines = {" ".join(line.split()[:2]): line for line in shown.stdout.splitlines()}
    for start in ("method scorecam", "metric average_drop", "metric increase", "images 6", "run folder", "forwards"):
        assert any(name.startswith(start) for name in lines), shown.stdout
    assert next(line.split() for line in shown.stdout.splitlines() if line.startswith("maps")) == ["maps", "12"]
    assert "with 3 CPU workers" in shown.stdout
    assert "at 2.5 per worker-hour" in shown.stdout
    assert not (demo.parent / "run").exists()


def test_uncounted_images_are_estimated(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "count_images", lambda *_: None)
    shown = run_plan(demo, "--set", "explain.methods=[gradcam]", "--set", "explain.metrics=[]")
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("images")]
    assert "about 6 (2 shards" in line
    assert "estimated from the sizes of the shards" in line


def test_json_is_one_object(demo: Path) -> None:
    shown = run_plan(demo, "--json", "--limit", 4, "--set", "explain.methods=[gradcam]")
    fields = json.loads(shown.stdout)
    assert (fields["images"], fields["rows"], fields["cost"], fields["machines"]["device"]) == (4, 4, None, "cpu")
    assert fields["maps"] == 4
    assert not fields["estimated"]
    assert [line["name"] for line in fields["lines"]][1:] == ["gradcam", "average_drop", "increase"]
    assert sum(line["share"] for line in fields["lines"]) == pytest.approx(1)


def test_many_maps_are_compared_with_a_published_number() -> None:
    estimate = SimpleNamespace(maps=653_580)
    assert _maps(cast(Any, estimate)) == "653,580 (2.0 times the 326,790 of LATEC)"


def test_all_mistakes_are_reported_at_once(demo: Path) -> None:
    refused = run_plan(demo, "--set", "explain.methods=[grad_cam]", "--set", "explain.metrics=[avrage_drop]")
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert "did you mean 'gradcam'?" in refused.stderr
    assert "did you mean 'average_drop'?" in refused.stderr


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [(0, "", "0"), (39.5667, "", "39.57"), (9999, "B", "9999 B"), (10_000, "", "10 k"), (6.74e9, "B", "6.74 GB")],
)
def test_amounts(number: float, unit: str, text: str) -> None:
    assert amount(number, unit) == text
