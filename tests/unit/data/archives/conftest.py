"""Fixtures that pack a replica and read it back, or collect the errors of an invalid one."""

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
    """Pack an archive; return its samples by key, as a run with the written classes reads them."""

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
    """Load the classes that packing wrote."""
    return lambda: load_classes(str(tmp_path / "shards" / "classes.csv"))


@pytest.fixture
def refused(tmp_path: Path) -> Refusing:
    """Pack an invalid archive, check that nothing is written, and return the messages by file name."""

    def refuse(kind: str, source: Path, split: str | None = None) -> dict[str, str]:
        with pytest.raises(ConfigError) as caught:
            pack_archive(kind, source, tmp_path / "shards", 2, split)
        assert not (tmp_path / "shards").exists()
        messages: dict[str, str] = {}
        for mistake in caught.value.mistakes:
            name = Path(mistake.where).name
            messages[name] = "; ".join(filter(None, [messages.get(name, ""), mistake.what]))
        return messages

    return refuse
