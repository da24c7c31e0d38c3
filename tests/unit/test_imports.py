"""The contracts on imports: every import runs downwards, and pages do not import each other."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("camatlas", "jobs", "pipeline", "schemas")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code and its contracts, to be changed."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.jpg", "*.png"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    code = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "planted", "broken"),
    [
        ("pipeline/maps/codec.py", "from pipeline.results.query import Run", "Levels"),
        ("pipeline/model/counts.py", "from pipeline.data.decode import decode_chunk", "Levels"),
        ("pipeline/errors.py", "import jobs.cli", "Packages"),
        ("pipeline/cams/gradient.py", "from pipeline.cams.score import ScoreCam", "Pages"),
        ("pipeline/metrics/road.py", "from pipeline.metrics.curves import Insertion", "Pages"),
    ],
)
def test_a_planted_import_breaks_a_contract(copy: Path, file: str, planted: str, broken: str) -> None:
    path = copy / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{planted}\n", encoding="utf-8")
    linted = lint(copy)
    assert linted.returncode == 1
    assert any(line.startswith(broken) and line.endswith("BROKEN") for line in linted.stdout.splitlines()), (
        linted.stdout
    )


def test_the_code_as_it_stands_keeps_every_contract(copy: Path) -> None:
    linted = lint(copy)
    assert linted.returncode == 0, linted.stdout
    assert "0 broken" in linted.stdout


def test_a_package_without_a_level_is_noticed(copy: Path) -> None:
    (copy / "pipeline" / "attic").mkdir()
    (copy / "pipeline" / "attic" / "__init__.py").write_text('"""A new package."""\n')
    linted = lint(copy)
    assert linted.returncode == 1
    assert "attic" in linted.stdout


def test_directly_in_the_pipeline_stand_two_files_and_none_is_long() -> None:
    assert sorted(path.name for path in (ROOT / "pipeline").glob("*.py")) == ["__init__.py", "errors.py"]
    long = [
        str(path)
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        if len(path.read_bytes().splitlines()) > 300
    ]
    assert not long
