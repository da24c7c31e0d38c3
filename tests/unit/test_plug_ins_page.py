"""Every block of the page on plug-ins works as it stands there."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from nets import ToyNet, images
from runfiles import SMALLEST

import camatlas
from pipeline.cams import build_methods
from pipeline.metrics import build_metrics
from pipeline.settings.registry import parameters
from pipeline.settings.run_file import parse_config

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plug-ins.md").read_text(encoding="utf-8")
BLOCKS = {kind: re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("python", "yaml", "toml")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the module of the page."""
    method, metric, _ = BLOCKS["python"]
    (tmp_path / "mine.py").write_text(f"{method}\n\n{metric}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("mine", None)


def test_the_page_has_the_blocks_that_are_run() -> None:
    assert {kind: len(blocks) for kind, blocks in BLOCKS.items()} == {"python": 3, "yaml": 1, "toml": 1}
    for block in BLOCKS["python"][:2]:
        assert len([line for line in block[block.index("@dataclass") :].splitlines() if line.strip()]) <= 15


@pytest.mark.usefixtures("folder")
def test_the_run_file_names_methods_and_metrics_of_the_module() -> None:
    config, mistakes = parse_config({**SMALLEST, **yaml.safe_load(BLOCKS["yaml"][0])})
    assert not mistakes
    methods, metrics = build_methods(config.explain.methods), build_metrics(config.explain.metrics)
    assert list(methods) == ["gradcam", "power_cam", "root_cam"]
    assert list(metrics) == ["average_drop", "kept_confidence"]
    assert parameters(methods["root_cam"])["power"] == 0.5


@pytest.mark.usefixtures("folder")
def test_the_lines_in_python_work() -> None:
    names: dict[str, Any] = {"camatlas": camatlas, "model": ToyNet(0), "pixels": images(0, 3)}
    for block in BLOCKS["python"]:
        exec(compile(block, "docs/plug-ins.md", "exec"), names)
    assert set(names["explanations"].maps) == {"gradcam", "power_cam"}
    assert names["values"]["kept_confidence"]["power_cam"].shape == (3,)


def test_the_entry_points_name_the_classes() -> None:
    declared = tomllib.loads(BLOCKS["toml"][0])["project"]["entry-points"]
    assert declared == {
        "camatlas.methods": {"power_cam": "mine:PowerCam"},
        "camatlas.metrics": {"kept_confidence": "mine:KeptConfidence"},
    }
