"""Facts of runs without labels, metrics, a second method, original images, or any explanation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from handmade import RunMaker, TwoRules

from pipeline.audit.facts import audit
from pipeline.audit.page import fitted, render
from pipeline.data.sources.shards import Failure
from pipeline.errors import ConfigError
from pipeline.explain.rows import Row, failure_row
from pipeline.results.query import open_run
from pipeline.storage.run_folder import PartName


class NothingExplained(RunMaker):
    """A run in which every image failed."""

    def explained(self, part: PartName, number: int, failing: str = "") -> list[Row]:
        key = self.image(part, number)
        return [failure_row(Failure(key, self.shards[part.shard], "decode", "truncated", "gone"), part.chunk)]


class Unlabelled(RunMaker):
    """A run in which no image has a label."""

    def explained(self, part: PartName, number: int, failing: str = "") -> list[Row]:
        return [row | {"label": None} for row in super().explained(part, number, failing)]


def facts_of(maker: RunMaker) -> dict[str, Any]:
    with open_run(maker.complete().folder) as run:
        found = audit(run)
    assert "<!doctype html>" in render(found.facts, found.pictures)
    return found.facts


def test_a_run_in_which_everything_failed_has_a_report(tmp_path: Path) -> None:
    facts = facts_of(NothingExplained(tmp_path / "run"))
    assert facts["coverage"]["explained"] == 0
    assert facts["gallery"] == []
    assert facts["leaderboard"]["rows"] == []
    assert facts["findings"][0]["kind"] == "shard_failures"


def test_missing_labels_are_listed_as_unchecked(tmp_path: Path) -> None:
    facts = facts_of(Unlabelled(tmp_path / "run"))
    assert facts["accuracy"]["overall"]["rows"][0]["accuracy"] is None
    assert [group["title"] for group in facts["gallery"]] == ["Most confident"]
    assert any("no labels" in sentence for sentence in facts["unchecked"])
    assert any("no class was predicted for 16 images" in sentence for sentence in facts["unchecked"])


def test_methods_are_compared_within_a_target_rule_only(tmp_path: Path) -> None:
    with open_run(TwoRules(tmp_path / "run").complete().folder) as run:
        found = audit(run)
    bests = [row for row in found.facts["leaderboard"]["rows"] if row["intervals"]["average_drop"]["best"]]
    assert {(row["target_rule"], row["method"]) for row in bests} == {("label", "gradcam"), ("predicted", "gradcam")}
    page = render(found.facts, found.pictures)
    assert "★ best of its target rule" in page
    assert "target rules are of different images and must not be compared" in page
    assert "gradcam (label)" in page
    assert "gradcam (predicted)" in page


def test_metrics_are_identified_by_kind_not_by_label(tmp_path: Path) -> None:
    facts = facts_of(RunMaker(tmp_path / "run", metrics=("drop",)))
    assert facts["metrics"]["drop"]["name"] == "average_drop"
    assert {(row["method"], row["wins"]) for row in facts["wins"]["rows"]} == {("gradcam", 1.0), ("scorecam", 0.0)}


def test_a_run_of_one_method_without_metrics(tmp_path: Path) -> None:
    facts = facts_of(RunMaker(tmp_path / "run", methods=("gradcam",), metrics=()))
    assert facts["metrics"] == {}
    assert facts["agreement"]["rows"] == facts["wins"]["rows"] == []
    assert any("single method" in sentence for sentence in facts["unchecked"])


def test_missing_prerequisites_are_listed_as_unchecked(tmp_path: Path) -> None:
    unchecked = " ".join(facts_of(RunMaker(tmp_path / "run"))["unchecked"])
    assert "camatlas sanity" in unchecked
    assert "box_removed_confidence" in unchecked
    assert "original images could not be read" in unchecked
    assert "the model could not be loaded" in unchecked


def test_the_gallery_shrinks_to_the_byte_budget(tmp_path: Path) -> None:
    with open_run(RunMaker(tmp_path / "run").complete().folder) as run:
        found = audit(run)
    image = found.facts["gallery"][0]["images"][0]
    long = replace(found, facts=found.facts | {"gallery": [{**found.facts["gallery"][0], "images": [image] * 48}]})
    group = long.facts["gallery"][0]
    sizes = {
        images: len(render(long.facts | {"gallery": [group | {"images": [image] * images}]}, {})) for images in (8, 12)
    }
    facts, html = fitted(replace(long, pictures={}), (sizes[8] + sizes[12]) // 2)
    assert len(facts["gallery"][0]["images"]) == 8
    assert len(html) == sizes[8]
    with pytest.raises(ConfigError, match="larger than 1000 bytes"):
        fitted(replace(long, pictures={}), 1000)
