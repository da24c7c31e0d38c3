"""A small run with its original images, and a folder to export to."""

from pathlib import Path

import pytest
from pictured import PicturedRun


@pytest.fixture
def pictured(tmp_path: Path) -> PicturedRun:
    """A finished run of 4 explained images: 7 explanations, 3 failures."""
    return PicturedRun(tmp_path / "run").complete()


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "new" / "export"
