"""Whole runs with several targets, stages and random methods."""

from pathlib import Path

import pytest
from e2e.runs import Settings, table_of
from inline import explain_inline
from quick import QUICK

from pipeline.audit.facts import audit
from pipeline.errors import ConfigError
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore

METHODS = ["gradcam", "integrative_cam", {"smoothgrad": QUICK["smoothgrad"]}, {"rise": {"num_masks": 20}}]


@pytest.fixture
def wide(settings: Settings) -> Settings:
    settings["data"]["limit"] = 8
    settings["explain"] |= {"methods": METHODS, "metrics": ["average_drop"], "targets": {"top": 2}}
    return settings


def test_two_targets_give_twice_the_rows_and_the_run_is_valid(wide: Settings) -> None:
    ended = explain_inline(wide)
    assert (ended.images, ended.rows) == (8, 8 * 2 * len(METHODS))
    assert verify(LocalStore(ended.path)).problems == []
    with open_run(ended.path) as run:
        board = run.sql("SELECT method, images, target_rule FROM leaderboard")
        facts = audit(run).facts
    assert set(board["images"]) == {8}
    assert set(board["target_rule"]) == {"top"}
    assert {row["method"] for row in facts["leaderboard"]["rows"] if row["interpretation"]} == {"integrative_cam"}
    assert all(len(item["methods"]) == len(METHODS) for group in facts["gallery"] for item in group["images"])


@pytest.mark.campaign
def test_another_seed_changes_only_the_random_methods(wide: Settings) -> None:
    first = table_of(explain_inline(wide).path).to_pandas()
    wide["explain"]["seed"] = 9
    wide["output"]["path"] += "_other"
    other = table_of(explain_inline(wide).path).to_pandas()
    same = (first["map"] == other["map"]).groupby(first["method"]).all()
    assert same.to_dict() == {"gradcam": True, "integrative_cam": True, "smoothgrad": False, "rise": False}


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("explain", "targets", {"top": 99}, "top 99, but the model has 6 classes"),
        ("explain", "targets", {"classes": [3, 12]}, "class 12, but the model has 6 classes"),
        ("model", "stages", ["nope"], "the model has no layer 'nope'"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused_before_the_run(
    wide: Settings, section: str, key: str, value: object, words: str
) -> None:
    wide[section][key] = value
    with pytest.raises(ConfigError, match=words):
        explain_inline(wide)
    assert not Path(wide["output"]["path"]).exists()
