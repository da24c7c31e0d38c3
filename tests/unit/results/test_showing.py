"""A run shows itself in a notebook, without torch, also where its images are gone."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from handmade import RunMaker, TwoRules

from pipeline.data.sources.shards import Failure
from pipeline.errors import ConfigError
from pipeline.explain.rows import Row, failure_row
from pipeline.results.query import Run, open_run
from pipeline.storage.run_folder import PartName
from schemas.manifest import RunManifest

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Hostile(RunMaker):
    """A run whose classes, keys and methods are markup."""

    @property
    def manifest(self) -> RunManifest:
        return super().manifest.model_copy(update={"classes": ("<script>alert(1)</script>", '"><img src=x onerror=1>')})


def test_the_representation_is_one_line(opened: Run) -> None:
    assert repr(opened).startswith(f"<Run {opened.manifest.run_id} of toy by gradcam, scorecam; 3 parts in ")


def test_a_notebook_shows_maps_and_the_leaderboard(opened: Run) -> None:
    page = opened._repr_html_()
    assert len(re.findall("data:image/webp", page)) == 4 + 7
    assert "average_drop ↓" in page
    assert re.findall(r"<td>(gradcam|scorecam)</td>", page) == ["gradcam", "scorecam"]
    assert "0-0-0, label dog, 0.750" in page


def test_a_notebook_says_that_target_rules_are_of_different_images(tmp_path: Path) -> None:
    with open_run(TwoRules(tmp_path / "run").complete().folder) as run:
        assert "target rules are of different images and must not be compared" in run._repr_html_()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    made = Hostile(tmp_path / "run", methods=("<b>", "gradcam"), prefix="<script>").complete()
    with open_run(made.folder) as run:
        page = run._repr_html_()
    assert "<script" not in page
    assert "<b>&" not in page
    assert not re.search(r"<img src=x", page)


def test_a_run_of_failures_alone_shows_its_facts(tmp_path: Path) -> None:
    class Broken(RunMaker):
        def rows(self, part: PartName) -> list[Row]:
            return [
                failure_row(Failure(self.image(part, 0), self.shards[part.shard], "decode", "corrupt", ""), part.chunk)
            ]

    with open_run(Broken(tmp_path / "run").complete().folder) as run:
        assert "data:image" not in run._repr_html_()
        with pytest.raises(ConfigError, match="no image was explained"):
            run.plot()


def test_plot_draws_the_first_images(opened: Run) -> None:
    pytest.importorskip("matplotlib")
    assert len(opened.plot(2).axes) == 2 * 3
    assert len(opened.plot(1, ["scorecam"]).axes) == 2
    with pytest.raises(ConfigError, match="did you mean 'gradcam'"):
        opened.plot(methods=["gradcm"])


def test_a_run_is_shown_and_checked_without_torch(small_run: RunMaker, tmp_path: Path) -> None:
    (tmp_path / "checks.yaml").write_text("checks: [images == 5, 'average_drop(gradcam) < 1']", encoding="utf-8")
    code = f"""
import sys
for name in ("torch", "torchvision", "ray", "scipy", "sklearn", "altair", "skimage", "safetensors"):
    sys.modules[name] = None
import camatlas
assert {{"explain", "open_run", "Explanations"}} <= set(dir(camatlas))
print(len(camatlas.open_run({str(small_run.folder)!r})._repr_html_()))
from jobs.cli import app
app(["check", {str(small_run.folder)!r}, {str(tmp_path / "checks.yaml")!r}])
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "0 failed, 2 passed"


def test_a_large_run_is_shown_without_its_leaderboard(opened: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.results.showing._MANY_ROWS", 1)
    page = opened._repr_html_()
    assert len(re.findall("data:image/webp", page)) == 4 + 7
    assert "average_drop" not in page
    assert "SELECT * FROM leaderboard" in page
