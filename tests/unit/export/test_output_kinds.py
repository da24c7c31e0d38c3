"""Exports of runs without a predicted class or confidences, and of runs whose labels are all explained."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from judged import Case, JudgedRun

from pipeline.export import export_run

REGRESSION = [Case(7, None, None, {0: ("predicted", None, 6.5)}), Case(None, None, None, {0: ("predicted", None, 1.5)})]
LABELS = [Case(None, 1, 0.9, {0: ("label", 0.6, 0.4), 1: ("label", 0.9, 2.2)})]


def test_raw_outputs_are_numbers_that_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path / "run", kind="raw", cases=REGRESSION).complete()
    for target in ("spotlight", "fiftyone", "hf"):
        export_run(str(run.folder), target, tmp_path / target)
    frame = pq.read_table(tmp_path / "spotlight" / "frame.parquet").to_pylist()
    assert [(row["predicted"], row["correct"], row["confidence"]) for row in frame] == [("", None, None)] * 2
    first, second = json.loads((tmp_path / "fiftyone" / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert first["ground_truth"] == {"_cls": "Regression", "value": 7}
    assert first["predictions"] == {"_cls": "Regression", "value": 6.5}
    assert "ground_truth" not in second
    (written,) = (tmp_path / "hf" / "explanations").iterdir()
    rows = pq.read_table(written)
    assert rows["label"].to_pylist() == [7, 7, None, None]
    assert rows["predicted"].null_count == 4


def test_a_prediction_that_is_one_of_several_labels_is_right(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path / "run", kind="sigmoid", rule="labels", cases=LABELS).complete()
    export_run(str(run.folder), "spotlight", tmp_path / "spotlight")
    frame = pq.read_table(tmp_path / "spotlight" / "frame.parquet").to_pylist()
    assert [(row["label"], row["correct"]) for row in frame] == [("", True)] * 2
