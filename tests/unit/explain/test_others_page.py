"""The Python of docs/others.md runs, and its tables name what there is."""

import re
from pathlib import Path

import pytest
from nets import ToyNet, images

import camatlas
from pipeline.cams.captum.table import TAKES

PAGE = (Path(__file__).resolve().parents[3] / "docs/others.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names = {"camatlas": camatlas, "model": ToyNet(0), "pixels": images(0, 2), "layer": "features.3"}
    for block in blocks:
        exec(block, names)
    assert names["explanations"].maps["chance"].shape == (2, 7, 7)  # type: ignore[attr-defined]


def test_the_table_of_costs_names_every_algorithm() -> None:
    first_cells = re.findall(r"^\| ([A-Z].*?) \|", PAGE, re.MULTILINE)
    named = {re.sub(r" \(.*", "", name) for cell in first_cells for name in cell.split(", ")}
    assert named == set(TAKES)
