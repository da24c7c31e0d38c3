"""The recipes of the page on queries and of module docstrings run unchanged and give the stated results."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import RunMaker
from queries import rows

import pipeline.results.atlas
import pipeline.results.query
from pipeline.storage.compaction import compact
from schemas.manifest import RunIdentity

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "howto" / "query.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


class OfModel(RunMaker):
    """A run whose model is named after its folder, as the recipes expect."""

    @property
    def identity(self) -> RunIdentity:
        """Return the identity of the run, with the model's name."""
        return super().identity.model_copy(update={"model": {"name": f"torchvision/{self.folder.name}"}})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the run and the atlas that the recipes use."""
    RunMaker(tmp_path / "my_run").complete()
    for model in ("resnet50", "mobilenet_v2"):
        OfModel(tmp_path / "atlas" / model).complete()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_compaction(_: Path) -> None:
    """Leave the runs unchanged, so that parts are read."""


def compacted(folder: Path) -> None:
    """Compact the runs, so that merged copies are read."""
    for run in (folder / "my_run", *(folder / "atlas").iterdir()):
        compact(RunMaker(run).store)


def run_recipes(recipes: list[str]) -> dict[str, Any]:
    """Run recipes one after another, as in a notebook, and return their variables."""
    names: dict[str, Any] = {}
    for recipe in recipes:
        exec(compile(recipe, "recipe", "exec"), names)
    return names


@pytest.mark.parametrize("before", [without_compaction, compacted])
def test_every_recipe_of_the_page_runs(place: Path, before: Callable[[Path], None]) -> None:
    before(place)
    assert len(RECIPES) == 4
    found = run_recipes(RECIPES)
    assert len(found["frame"]) == 10
    assert found["maps"].shape == (3, 3, 4)
    mean_P = found["maps"].mean(0, np.float64).ravel()
    assert found["mean"]["mean"].to_numpy() == pytest.approx(mean_P)
    assert found["plain"]["mean"].to_numpy() == pytest.approx(mean_P)
    assert found["mean"]["cell"].tolist() == list(range(12))
    assert found["plain"]["cell"].tolist() == list(range(1, 13))
    assert tuple(found["large"].shape) == (3, 224, 224)
    assert found["one"]["method"].tolist() == ["gradcam", "scorecam"]
    assert len(found["both"]) == 7
    found["run"].close()
    found["atlas"].close()


def test_third_party_readers_agree_on_the_mean_of_a_metric(place: Path) -> None:
    found = run_recipes(RECIPES[:1])
    means = {
        "pandas": found["in_pandas"].to_dict(),
        "polars": dict(found["in_polars"].iter_rows()),
        "duckdb": dict(found["in_duckdb"].itertuples(index=False)),
    }
    with pipeline.open_run("my_run") as run:
        expected = dict(rows(run, "SELECT method, average_drop FROM leaderboard"))
    assert all(mean == pytest.approx(expected) for mean in means.values())


def test_the_recipes_use_only_files_created_by_the_fixture() -> None:
    assert set(re.findall(r"[\"'](\w+)/", "".join(RECIPES))) <= {"my_run", "torchvision"}


@pytest.mark.parametrize("page", [pipeline.results.query.__doc__, pipeline.results.atlas.__doc__])
def test_the_recipe_in_a_module_docstring_runs(place: Path, page: str) -> None:
    pages = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)
    assert len(pages) == 1
    run_recipes(["import pipeline\n" + textwrap.dedent(pages[0])])
