"""The corpus: every layout gives its truth or its sentence, in a run and in packed shards."""

import re
from pathlib import Path

import pytest
from layouts import described, folders, tables, tars
from layouts.base import LAYOUTS
from layouts.judge import faults_in_run, faults_in_shards
from layouts.running import run_layout

from pipeline.data.packing import pack_images
from pipeline.errors import ConfigError

PAGES = (described, folders, tables, tars)
"""Importing a page adds its layouts to the corpus."""


def faults(name: str, where: Path) -> list[str]:
    """Return what a run of a layout got wrong."""
    folder, output = where / "data", where / "run"
    truth = LAYOUTS[name](folder)
    try:
        boxes = run_layout(folder, truth, output)
    except ConfigError as error:
        return [] if truth.refused and re.search(truth.refused, str(error), re.DOTALL) else [f"refused: {error}"]
    return ["it was not refused"] if truth.refused else faults_in_run(output, boxes, truth)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_holds_the_truth(name: str, tmp_path: Path) -> None:
    assert faults(name, tmp_path) == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_packed_shards_hold_the_truth(name: str, tmp_path: Path) -> None:
    truth = LAYOUTS[name](tmp_path / "data")
    if truth.packed:
        pack_images(tmp_path / "data", tmp_path / "shards", 2, truth.data.get("classes"))
        assert faults_in_shards(tmp_path / "shards", truth) == []


def test_the_corpus_is_large() -> None:
    assert len(LAYOUTS) >= 60
