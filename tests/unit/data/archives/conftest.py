"""Packing a replica and reading it back, and the mistakes that one makes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.packing import pack_archive
from pipeline.data.sources import Reading, Sample, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError

Packing = Callable[..., dict[str, Sample]]
Refusing = Callable[..., dict[str, str]]


@pytest.fixture
def packed(tmp_path: Path) -> Packing:
    """Pack an archive; gives what comes back by key, as a run with the written classes reads it."""

    def pack(kind: str, source: Path, split: str | None = None) -> dict[str, Sample]:
        result = pack_archive(kind, source, tmp_path / "shards", 2, split)
        assert result.failures == ()
        reading = Reading(Annotations(load_classes(str(tmp_path / "shards" / "classes.csv"))))
        items = [item for shard in list_shards(str(tmp_path / "shards")) for item in read_shard(shard, reading)]
        assert [item for item in items if not isinstance(item, Sample)] == []
        assert len(items) == result.images
        return {item.key: item for item in items if isinstance(item, Sample)}

    return pack


@pytest.fixture
def classes(tmp_path: Path) -> Callable[[], ClassTable]:
    """The classes that packing wrote."""
    return lambda: load_classes(str(tmp_path / "shards" / "classes.csv"))


@pytest.fixture
def refused(tmp_path: Path) -> Refusing:
    """Pack an archive that is wrong; gives the mistakes by the base name of where they are. Nothing was written."""

    def refuse(kind: str, source: Path, split: str | None = None) -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            pack_archive(kind, source, tmp_path / "shards", 2, split)
        assert not (tmp_path / "shards").exists()
        told: dict[str, str] = {}
        for mistake in caught.value.mistakes:
            place = Path(mistake.where).name
            told[place] = "; ".join(filter(None, [told.get(place, ""), mistake.what]))
        return told

    return refuse
