"""Reads one image of a shard by its place: one range of a tar, one row of a table, or one file.

The place only says where to look. What lies there must be an image of the wanted key, and of the stated size.
"""

from collections.abc import Iterator
from dataclasses import replace

from pipeline.data.sources import Reading, list_items, read_shard
from pipeline.data.sources.folder import read_folder
from pipeline.data.sources.manifest import read_manifest
from pipeline.data.sources.objects import RangeReader
from pipeline.data.sources.parquet import ReaderDiedError, item_of
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.data.sources.shards import KNOWN_KINDS, TABLE_KINDS, Extent, Item, Sample, Shard, clean_text, is_image
from pipeline.data.sources.stored_names import names_to_read_by
from pipeline.data.sources.tar import read_sample

MOST_BYTES = 1 << 30
"""Largest range that is read at once: a sample may have several members."""


class MissingImageError(Exception):
    """An image is not where it should be, or cannot be read; the message says why."""


def is_located(extent: Extent, shard: Shard) -> bool:
    """Return whether an image can be read by its place, and not by searching its shard."""
    if shard.kind in KNOWN_KINDS:
        return True
    return (extent.image_row if shard.kind in TABLE_KINDS else extent.sample_offset) is not None


def extents_of(shard: Shard, reading: Reading, tables: ParquetSandbox) -> dict[str, Extent]:
    """Find the places of all images of a shard: from the headers of a tar, or the keys of a table."""
    return {item.key: item.extent for item in list_items(shard, reading, tables.rows) if is_image(item)}


def read_image(
    shard: Shard, reading: Reading, key: str, extent: Extent, ranges: RangeReader, tables: ParquetSandbox
) -> Sample:
    """Read one image by its place.

    Raises:
        MissingImageError: there is no image of this key and size, or it cannot be read.
        OSError: the file of the shard is gone, or ends before.
        StoreError: its store cannot be reached, or the shard was replaced.
    """
    if shard.kind in TABLE_KINDS:
        items = _in_table(shard, reading, key, extent, tables)
    elif shard.kind in KNOWN_KINDS:
        items = _in_listing(shard, reading, key)
    else:
        items = _in_tar(shard, reading, key, extent, ranges)
    return _wanted(items, key, extent, f"it is not where the run found it in '{shard.name}'")


def search_image(shard: Shard, reading: Reading, key: str, tables: ParquetSandbox) -> Sample:
    """Read a shard until one image is found; raises as `read_image`."""
    return _wanted(read_shard(shard, reading, tables.rows), key, Extent(), f"there is no such image in '{shard.name}'")


def _wanted(items: Iterator[Item], key: str, extent: Extent, missing: str) -> Sample:
    found = next((item for item in items if item.key == key and is_image(item)), None)
    if found is None:
        raise MissingImageError(missing)
    if not isinstance(found, Sample):
        raise MissingImageError(f"it failed when it was read ({found.stage}/{found.code}): {found.detail}")
    if extent.image_bytes not in (None, len(found.image)):
        raise MissingImageError(f"it had {extent.image_bytes} bytes in the run, and has {len(found.image)} now")
    return found


def _in_tar(shard: Shard, reading: Reading, key: str, extent: Extent, ranges: RangeReader) -> Iterator[Item]:
    start, length = extent.sample_offset, extent.sample_bytes
    if start is None or length is None or start < 0 or not 0 < length <= min(MOST_BYTES, shard.size - start):
        raise MissingImageError(f"its place is not within '{shard.name}'")
    data = ranges.read(shard, start, length)
    return read_sample(data, key, shard, reading.annotations, reading.suffixes, reading.members)


def _in_table(shard: Shard, reading: Reading, key: str, extent: Extent, tables: ParquetSandbox) -> Iterator[Item]:
    if extent.image_row is None or extent.image_row < 0:
        raise MissingImageError(f"its place is not within '{shard.name}'")
    try:
        row = tables.row(shard, reading.columns, extent.image_row, key)
    except ReaderDiedError:
        raise MissingImageError(f"the Parquet library crashed at it in '{shard.name}'") from None
    except ValueError as error:
        raise MissingImageError(f"it cannot be read in '{shard.name}': {error}") from None
    if row is not None:
        names = names_to_read_by(shard, reading.columns["label"], reading.annotations.classes)
        yield item_of(row, shard, reading.annotations, reading.columns, names)


def _in_listing(shard: Shard, reading: Reading, key: str) -> Iterator[Item]:
    members = tuple(member for member in shard.members if clean_text(member) == key)
    entries = tuple(entry for entry in shard.entries if entry.key == key)
    read = read_folder if shard.kind == "folder" else read_manifest
    return read(replace(shard, members=members, entries=entries), reading.annotations)
