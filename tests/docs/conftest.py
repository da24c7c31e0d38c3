"""A working folder for pages that are run, and a browser for those that are built."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.conftest import browser
from docs.commands import without_ray
from handmade import RunMaker

__all__ = ["browser", "empty_folder", "small_run"]


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder in which verbs explain without Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with without_ray():
        yield tmp_path


@pytest.fixture
def small_run(tmp_path: Path) -> RunMaker:
    """A finished run: 3 parts, 5 images, 2 methods, one failure of each kind."""
    return RunMaker(tmp_path / "run").complete()
