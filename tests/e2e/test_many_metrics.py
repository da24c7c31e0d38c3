"""Whole runs with every metric, queries on them, and their agreement and sanity checks."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from e2e.runs import Settings, table_of
from inline import explain_inline

from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.audit.sanity import check_sanity
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS as ALL_METRICS
from pipeline.metrics import reads_parts
from pipeline.results.agreement import agreement
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore
from schemas.explanation import is_curve

METRICS = {name: kind for name, kind in ALL_METRICS.items() if not reads_parts(kind())}
"""Every metric but those of parts, which the scenes do not have."""
CHEAP = {"insertion": {"steps": 4}, "deletion": {"steps": 4}, "insertion_curve": {"steps": 4},
         "deletion_curve": {"steps": 4}, "infidelity": {"samples": 3}, "max_sensitivity": {"samples": 1}}  # fmt: skip


@pytest.fixture
def measured(settings: Settings) -> Settings:
    settings["data"]["limit"] = 6
    settings["explain"] |= {
        "methods": ["gradcam", "eigen_cam", "shuffled_gradcam"],
        "metrics": [{name: CHEAP.get(name, {})} for name in METRICS],
    }
    return settings


def test_every_metric_is_a_column_with_unit_and_meaning(measured: Settings) -> None:
    measured["data"]["limit"] = 2
    ended = explain_inline(measured)
    assert verify(LocalStore(ended.path)).problems == []
    table = table_of(ended.path)
    for name, kind in METRICS.items():
        field = table.schema.field(name)
        assert field.type == (pa.list_(pa.float32()) if kind.curve else pa.float32())
        assert field.metadata[b"unit"].decode() == kind.unit
        assert name in field.metadata[b"meaning"].decode()
        assert table[name].null_count == 0, name
    first = table.to_pylist()[0]
    assert (len(first["insertion_curve"]), len(first["box_iou_curve"])) == (5, 256)
    points = np.array(first["deletion_curve"])
    assert np.mean((points[1:] + points[:-1]) / 2) == pytest.approx(first["deletion"], abs=1e-6)
    with open_run(ended.path) as run:
        board = run.sql("SELECT * FROM leaderboard")
        accuracy = run.sql(MAX_BOX_ACC)
        facts = audit(run).facts
    assert {name for name in METRICS if not is_curve(name)} < set(board.columns)
    assert not any(is_curve(column) for column in board.columns)
    assert accuracy["max_box_acc"].between(0, 1).all()
    assert {(row["method"], row["other"]) for row in facts["wins"]["rows"]} >= {("gradcam", "eigen_cam")}
    page = render(facts, {})
    assert "Win rates" in page


MAX_BOX_ACC = """
SELECT method, max(accuracy) AS max_box_acc FROM (
  SELECT method, t, avg((box_iou_curve[t] >= 0.5)::INT) AS accuracy
  FROM explanations, range(1, 257) AS levels(t) WHERE box_iou_curve IS NOT NULL GROUP BY ALL
) GROUP BY method
"""


def test_agreement_and_sanity_of_a_run(measured: Settings) -> None:
    measured["explain"]["metrics"] = []
    ended = explain_inline(measured)
    with open_run(ended.path) as run:
        pairs = agreement(run, images=5).to_pylist()
        assert run.sql("SELECT count(*) AS n FROM sanity")["n"].tolist() == [0]
        first = check_sanity(run, images=4, steps=2)
        assert check_sanity(run, images=4, steps=2).equals(first)
    assert [(row["method"], row["other"]) for row in pairs] == [
        ("eigen_cam", "gradcam"), ("eigen_cam", "shuffled_gradcam"), ("gradcam", "shuffled_gradcam"),
    ]  # fmt: skip
    assert all(row["maps"] == 5 and -1 <= row["spearman"] <= 1 for row in pairs)
    rows = {(row["test"], row["step"], row["method"]): row for row in first.to_pylist()}
    assert len(rows) == 3 * (2 + 1)
    assert rows["class_swap", 1, "eigen_cam"]["spearman"] == pytest.approx(1), "it does not depend on the class"
    assert rows["class_swap", 1, "gradcam"]["spearman"] < 0.99
    assert rows["randomisation", 1, "eigen_cam"]["spearman"] == pytest.approx(1), "it does not depend on the head"
    assert rows["randomisation", 2, "eigen_cam"]["spearman"] < 0.99
    with open_run(ended.path) as run:
        kept = run.sql("SELECT * FROM sanity WHERE test = 'randomisation'")
    assert len(kept) == 6
    with open_run(ended.path) as run:
        check_sanity(run, images=40, steps=1)  # replaces the previous check
    with open_run(ended.path) as run:
        assert run.sql("SELECT DISTINCT images FROM sanity")["images"].tolist() == [6]
        assert run.sql("SELECT count(*) AS n FROM sanity")["n"].tolist() == [6]
    assert verify(LocalStore(ended.path)).problems == []


def test_agreement_needs_two_methods(settings: Settings) -> None:
    settings["data"]["limit"] = 2
    settings["explain"] |= {"methods": ["gradcam"], "metrics": []}
    with open_run(explain_inline(settings).path) as run, pytest.raises(ConfigError, match="at least two methods"):
        agreement(run)


def test_a_sanity_check_whose_images_are_missing_is_refused(settings: Settings, scenes: Path) -> None:
    settings["data"]["limit"] = 2
    settings["explain"] |= {"methods": ["gradcam"], "metrics": []}
    ended = explain_inline(settings)
    moved = scenes / "shards.away"
    (scenes / "shards").rename(moved)
    try:
        with open_run(ended.path) as run, pytest.raises(ConfigError):
            check_sanity(run, images=2, steps=2)
    finally:
        moved.rename(scenes / "shards")


def test_a_map_beats_its_own_values_in_random_order(settings: Settings) -> None:
    """The 95 % interval of the paired difference over 24 images excludes zero."""
    settings["data"]["limit"] = 24
    settings["explain"] |= {
        "methods": ["gradcam", "shuffled_gradcam"],
        "metrics": [{"insertion": {"steps": 10}}, {"deletion": {"steps": 10}}],
    }
    with open_run(explain_inline(settings).path) as run:
        frame = run.sql(PAIRED)
    insertion, deletion = frame["insertion"], frame["deletion"]
    assert len(frame) == 24
    assert insertion.mean() - 1.96 * insertion.sem() > 0
    assert deletion.mean() + 1.96 * deletion.sem() < 0


PAIRED = """
SELECT map.insertion - control.insertion AS insertion, map.deletion - control.deletion AS deletion
FROM explanations map JOIN explanations control USING (shard, image_key, target)
WHERE map.method = 'gradcam' AND control.method = 'shuffled_gradcam'
"""
