"""Drift between runs over different images: planted shifts are found, equal runs have none, effects against scipy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import RunMaker
from report_scale import METHODS, METRICS, ScaledRun, rows_of, write_run
from scipy import stats

from pipeline.audit import sample as sampling
from pipeline.audit.compare import compare_runs
from pipeline.audit.drift import PROPERTIES, cliffs_delta, compared, drift, properties, size_of
from pipeline.audit.facts import audit
from pipeline.audit.maps import load_maps
from pipeline.audit.page import render
from pipeline.audit.values import load_values
from pipeline.data.sources.shards import Failure
from pipeline.errors import ConfigError
from pipeline.explain.rows import Row, failure_row
from pipeline.results.query import open_run
from pipeline.storage.parts import Footer, publish_part
from pipeline.storage.run_folder import PartName
from schemas.manifest import RunManifest

RANDOM = np.random.default_rng(7)
IMAGES = 700


def made(folder: Path, seed: int, shift: float = 0.0, images: int = IMAGES) -> Path:
    write_run(folder, images, 100, seed, shift)
    return folder


def drift_of(one: Path, other: Path) -> dict[str, Any]:
    with open_run(one) as run, open_run(other) as second:
        pair = [(each, values := load_values(each), load_maps(each, values.places)) for each in (run, second)]
        return drift(*pair[0], *pair[1])


def test_a_planted_shift_is_found_and_sorted_by_its_effect(tmp_path: Path) -> None:
    chapter = drift_of(made(tmp_path / "one", 1), made(tmp_path / "other", 2, shift=0.2))
    assert chapter["images"] == [IMAGES, IMAGES]
    rows = {(row["quantity"], row["method"]): row for row in chapter["rows"]}
    assert rows["confidence", ""]["effect"] > 0.6
    assert (rows["confidence", ""]["size"], rows["confidence", ""]["p"] < 1e-9) == ("large", True)
    assert rows["insertion", "gradcam"]["effect"] > 0.2
    assert rows["insertion", "gradcam"]["p"] < 0.01
    for name in PROPERTIES:
        assert rows[name, "layercam"]["size"] == "negligible", "the maps are drawn alike"
        assert rows[name, "layercam"]["p"] > 0.05
    effects = [abs(row["effect"]) for row in chapter["rows"]]
    assert effects == sorted(effects, reverse=True)
    assert [row["quantity"] for row in chapter["classes"]] == ["predicted class", "label"]
    label = chapter["classes"][1]
    assert label["effect"] > label["by_chance"]
    assert label["p"] < 0.05


def test_runs_from_one_distribution_do_not_drift(tmp_path: Path) -> None:
    chapter = drift_of(made(tmp_path / "one", 1), made(tmp_path / "other", 2))
    assert min(row[name] for row in chapter["rows"] for name in ("p", "p_shape")) > 0.01
    for row in chapter["classes"]:
        assert row["effect"] == pytest.approx(row["by_chance"], rel=0.1), "1,000 classes differ by chance alone"
        assert (row["size"], row["p"] > 0.01) == ("negligible", True)
        assert row["cramer"] < 0.2


def test_the_page_has_a_chapter_that_names_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = made(tmp_path / "one", 1, images=400), made(tmp_path / "other", 2, images=250)
    monkeypatch.setattr(sampling, "MAX_IMAGES", 300)
    monkeypatch.setattr(sampling, "MIN_IMAGES", 300)
    with open_run(folders[0]) as run, open_run(folders[1]) as other:
        found = audit(run, other, ask_model=False)
    page = render(found.facts, found.pictures)
    assert found.facts["compare"] is None
    assert "Drift against" in page
    assert "Compared with" not in page
    assert "Numbers of this run rest on 300 of 400 images, drawn by key" in page
    assert found.facts["drift"]["rows"][0]["images"] == [300, 250]
    assert found.facts["drift"]["classes"][0]["images"] == [400, 250]


def test_pairs_come_from_the_smaller_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over some images of a larger one: all of them are paired, although few are in the sample of the larger."""
    large, small = made(tmp_path / "large", 1, images=400), made(tmp_path / "small", 1, images=100)
    monkeypatch.setattr(sampling, "MAX_IMAGES", 150)
    monkeypatch.setattr(sampling, "MIN_IMAGES", 150)
    for one, other in ((large, small), (small, large)):
        found = paired(one, other)
        assert (found["images"], found["changed"], found["drawn"]) == (100, 0, "")
        assert {found["only_here"], found["only_there"]} == {0, 300}
        assert not found["same_images"]
    same = paired(large, large)
    assert (same["images"], same["only_here"], same["same_images"]) == (150, None, True)
    assert same["drawn"] == "150 of 400 images, drawn by key"


def paired(one: Path, other: Path) -> dict[str, Any]:
    with open_run(one) as run, open_run(other) as second:
        found = compare_runs(run, load_values(run), second, load_values(second))
    assert found is not None
    return found


class NothingExplained(RunMaker):
    """A run in which every image failed."""

    def explained(self, part: PartName, number: int, failing: str = "") -> list[Row]:
        key = self.image(part, number)
        return [failure_row(Failure(key, self.shards[part.shard], "decode", "truncated", "gone"), part.chunk)]


def test_a_run_without_maps_cannot_be_compared(tmp_path: Path) -> None:
    one, other = RunMaker(tmp_path / "one").complete(), NothingExplained(tmp_path / "other").complete()
    with (
        open_run(one.folder) as run,
        open_run(other.folder) as empty,
        pytest.raises(ConfigError, match="was explained"),
    ):
        audit(run, empty, ask_model=False)


def test_small_runs_without_a_common_image_or_number_have_a_page(tmp_path: Path) -> None:
    one, other = (RunMaker(tmp_path / name, prefix=name).complete().folder for name in ("one", "<b>"))
    with open_run(one) as run, open_run(other) as second:
        found = audit(run, second, ask_model=False)
    assert (found.facts["compare"], found.facts["drift"]["rows"]) == (None, [])
    assert "No number could be compared" in render(found.facts, found.pictures)


class Renamed(ScaledRun):
    """A run with another list of classes."""

    @property
    def manifest(self) -> RunManifest:
        return super().manifest.model_copy(update={"classes": ("dog", "cat")})


def test_other_classes_are_matched_by_name(tmp_path: Path) -> None:
    maker = Renamed(tmp_path / "other", shards=["x.tar"], methods=METHODS, metrics=METRICS, seed=3).owned()
    publish_part(maker.store, rows_of(maker, 0, 0, 50), Footer(maker.manifest.run_id, 0, 0, True, 50))
    chapter = drift_of(made(tmp_path / "one", 1, images=50), tmp_path / "other")
    assert any("matched by name" in note for note in chapter["notes"])
    names = {row["class"] for row in chapter["classes"][0]["largest"]}
    assert not names & {"class 0", "class 1"}, "both have names in both runs"


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_delta_is_that_of_all_pairs(shift: float) -> None:
    here, there = RANDOM.normal(shift, 1, 60).round(1), RANDOM.normal(0, 1, 80).round(1)
    delta, low, high = cliffs_delta(here, there)
    signs = np.sign(here[:, None] - there[None])
    assert delta == pytest.approx(signs.mean())
    assert low < delta < high
    u = stats.mannwhitneyu(here, there)
    assert delta == pytest.approx(2 * u.statistic / (60 * 80) - 1)


def test_the_interval_of_delta_holds_and_stays_in_range() -> None:
    held = 0
    for _ in range(300):
        here, there = RANDOM.normal(0.5, 1, 40), RANDOM.normal(0, 1, 40)
        _, low, high = cliffs_delta(here, there)
        held += low <= 2 * stats.norm.cdf(0.5 / 2**0.5) - 1 <= high
    assert 0.9 <= held / 300 <= 0.985
    assert cliffs_delta(np.arange(9.0) + 10, np.arange(9.0))[2] == 1
    assert cliffs_delta(np.arange(9.0), np.arange(9.0) + 10) == (-1, -1, pytest.approx(-1 + 1 / 9))
    assert cliffs_delta(np.zeros(9), np.zeros(9)) == (0, 0, 0)


def test_few_or_unknown_values_are_not_compared() -> None:
    assert compared("x", "", "", np.zeros(7), np.zeros(50)) is None
    assert compared("x", "", "", np.full(50, np.nan), np.zeros(50)) is None
    constant = compared("x", "", "", np.ones(50), np.ones(50))
    assert constant is not None
    assert (constant["effect"], constant["p"], constant["p_shape"]) == (0, 1, 1)
    assert [size_of(effect) for effect in (0.1, -0.2, 0.4, -0.9)] == ["negligible", "small", "medium", "large"]


def test_properties_of_maps_by_hand() -> None:
    maps = np.zeros((3, 10, 10), np.uint8)
    maps[0, 9, 0] = 255
    maps[1] = 7
    found = properties(maps)
    assert [found[name][0] for name in PROPERTIES] == pytest.approx([1, 0, 1, 0])
    assert [found[name][1] for name in PROPERTIES] == pytest.approx([0.1, 1, 0.5, 0.5])
    assert all(np.isnan(found[name][2]) for name in PROPERTIES)
