"""Checks where the rows of a part say that their images lie, without opening a shard."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.sources.shards import TABLE_KINDS, Extent
from schemas.explanation import SHARD_STAGE, SOURCE_FIELDS
from schemas.manifest import ShardEntry

_NAMES = [field.name for field in SOURCE_FIELDS]


def source_problems(table: pa.Table, shard: ShardEntry) -> Iterator[str]:
    """Yield one problem if images cannot lie where their rows say; rows that say nothing are of an earlier version.

    Args:
        table: the rows of a part, with the columns of the source.
        shard: the shard they belong to.
    """
    images = table.filter(pc.not_equal(pc.fill_null(table["error_stage"], ""), SHARD_STAGE))
    rows = images.group_by(["image_key", *_NAMES]).aggregate([]).to_pylist()
    places: dict[tuple[int | None, int | None], str] = {}
    keys: set[str] = set()
    for row in rows:
        key, extent = row["image_key"], Extent.of(row)
        if key in keys:
            yield f"the rows of image '{key}' say that it lies in different places"
            return
        keys.add(key)
        if wrong := _wrong(extent, shard):
            yield f"image '{key}' cannot lie where its row says: {wrong}"
            return
        place = extent.image_offset, extent.image_row
        if place != (None, None) and shard.kind in ("tar", *TABLE_KINDS) and places.setdefault(place, key) != key:
            yield f"images '{places[place]}' and '{key}' lie in one place"
            return


def _wrong(extent: Extent, shard: ShardEntry) -> str:
    """Say what cannot be; empty for a place that is possible in a shard of this kind and size."""
    given: Mapping[str, Any] = {name: value for name, value in extent._asdict().items() if value is not None}
    if negative := [name for name, value in given.items() if value < 0]:
        return f"{negative[0]} is negative"
    if extent.image_row is not None and shard.kind not in TABLE_KINDS:
        return f"image_row, in a shard that is a {shard.kind}"
    if shard.kind in TABLE_KINDS:
        return "image_offset, in a table" if extent.image_offset is not None else ""
    if shard.kind != "tar":
        return "image_offset, in a file of its own" if extent.image_offset else ""
    if (extent.sample_offset is None) != (extent.sample_bytes is None):
        return "sample_offset without sample_bytes, or the reverse"
    if extent.sample_offset is None or extent.sample_bytes is None:
        return "image_offset without its sample" if extent.image_offset is not None else ""
    end = extent.sample_offset + extent.sample_bytes
    if end > shard.size:
        return f"its sample ends at {end}, but the shard has {shard.size} bytes"
    if extent.image_offset is not None:
        inside = extent.sample_offset < extent.image_offset <= end - (extent.image_bytes or 0)
        return "" if inside else "it is not within its sample"
    return ""
