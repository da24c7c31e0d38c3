"""A place for a run, and a small, valid run for every test that wants one."""

from pathlib import Path

import pytest
from handmade import RunMaker
from merging import ManyImages

from pipeline.results.query import Run, open_run
from pipeline.storage.local_store import LocalStore


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """A run that is not written yet."""
    return RunMaker(tmp_path / "run")


@pytest.fixture
def small_run(maker: RunMaker) -> RunMaker:
    """A finished run: 3 parts, 5 images, 2 methods, one failure of each kind."""
    return maker.complete()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty place for a run; the folder does not exist yet."""
    return LocalStore(tmp_path / "run")


@pytest.fixture
def opened(small_run: RunMaker) -> Run:
    """The small run, open for questions."""
    return open_run(small_run.folder)


@pytest.fixture
def many(tmp_path: Path) -> ManyImages:
    """A finished run of 180 rows in three parts, to be merged."""
    return ManyImages(tmp_path / "run").complete()
