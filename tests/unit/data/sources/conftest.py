"""Fixtures that write bytes to disk and read them back as items; session-wide, so that hypothesis may use them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.sources import Item, Reading, Shard, read_shard
from pipeline.data.sources.annotations import Annotations


@pytest.fixture(scope="session")
def shard() -> Shard:
    """Return a shard of which only the name matters."""
    return Shard(0, "s.tar", "tar", "/nowhere/s.tar", 0, "")


@pytest.fixture(scope="session")
def read_tar_bytes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Item]]:
    """Read bytes as a tar shard named s.tar."""
    path = tmp_path_factory.mktemp("tar") / "s.tar"

    def read(data: bytes, annotations: Annotations | None = None) -> list[Item]:
        path.write_bytes(data)
        shard = Shard(0, "s.tar", "tar", str(path), len(data), "")
        return list(read_shard(shard, Reading(annotations or Annotations())))

    return read


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a text file and return its path."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
