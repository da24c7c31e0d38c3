"""A small run, and its pages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import RunMaker
from starlette.testclient import TestClient
from viewing import viewing


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return RunMaker(tmp_path_factory.mktemp("runs") / "small").complete().folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[TestClient]:
    with viewing(folder) as client:
        yield client
