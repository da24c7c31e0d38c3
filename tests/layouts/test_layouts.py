"""The corpus: every layout gives its truth or its sentence, in a run and in packed shards."""

import re
from pathlib import Path

import pytest
from layouts import folders, tables, tars, waiting
from layouts.base import LAYOUTS
from layouts.judge import faults_in_run, faults_in_shards
from layouts.running import run_layout

from pipeline.data.packing import pack_images
from pipeline.errors import ConfigError

PAGES = (folders, tables, tars, waiting)
"""Importing a page adds its layouts to the corpus."""

READ = [name for name in LAYOUTS if name not in waiting.PENDING]


def faults(name: str, where: Path) -> list[str]:
    """Return what a run of a layout got wrong."""
    folder, output = where / "data", where / "run"
    truth = LAYOUTS[name](folder)
    try:
        boxes = run_layout(folder, truth, output)
    except ConfigError as error:
        return [] if truth.refused and re.search(truth.refused, str(error), re.DOTALL) else [f"refused: {error}"]
    return ["it was not refused"] if truth.refused else faults_in_run(output, boxes, truth)


@pytest.mark.parametrize("name", READ)
def test_a_run_holds_the_truth(name: str, tmp_path: Path) -> None:
    assert faults(name, tmp_path) == []


@pytest.mark.parametrize("name", waiting.PENDING)
def test_what_is_pending_is_not_right_yet(name: str, tmp_path: Path) -> None:
    assert faults(name, tmp_path), "take it out of PENDING"


@pytest.mark.parametrize("name", READ)
def test_packed_shards_hold_the_truth(name: str, tmp_path: Path) -> None:
    truth = LAYOUTS[name](tmp_path / "data")
    if truth.packed:
        pack_images(tmp_path / "data", tmp_path / "shards", 2, truth.data.get("classes"))
        assert faults_in_shards(tmp_path / "shards", truth) == []


def test_the_corpus_is_large() -> None:
    assert len(LAYOUTS) >= 60
    assert set(waiting.PENDING) <= set(LAYOUTS)
