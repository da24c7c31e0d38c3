"""Parquet files with a column of encoded images (bytes, or a struct with a field `bytes`)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.annotations import Annotations, annotated
from pipeline.sources.members import BadAnnotationError, checked, parse_box
from pipeline.sources.objects import is_url, open_shard
from pipeline.sources.shards import Failure, Item, Sample, Shard, damage

Record = dict[str, Any]

_ROWS_AT_A_TIME = 64
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""What Arrow raises; the last two for text that is not UTF-8 and dates beyond the calendar."""


def read_parquet(shard: Shard, annotations: Annotations, columns: dict[str, str]) -> Iterator[Item]:
    """Stream the samples of one Parquet file.

    Args:
        shard: the file.
        annotations: labels and boxes from CSV files; they win over columns.
        columns: names of the columns `image`, `key`, `label`, `boxes` (only `image` must exist in the file).
            Without a key column the key is the file's stem and the row number.
    """
    return _items(
        shard, columns, list(columns.values()), lambda key, record: _item(key, record, shard, annotations, columns)
    )


def list_parquet(shard: Shard, columns: dict[str, str]) -> Iterator[Item]:
    """Stream the keys of one Parquet file, as samples without content; other columns are not read."""
    return _items(shard, columns, [columns["key"]], lambda key, _: Sample(key, shard.name, b"", None, None))


def _items(
    shard: Shard, columns: dict[str, str], wanted: list[str], make: Callable[[str, Record], Item]
) -> Iterator[Item]:
    """Stream the rows of a file, made into items by their key and the wanted columns; a repeated key is a failure."""
    row = 0
    try:
        with pq.ParquetFile(open_shard(shard) if is_url(shard.location) else shard.location) as file:
            if columns["image"] not in file.schema_arrow.names:
                yield damage(shard, 0, "unreadable", f"no column '{columns['image']}'")
                return
            seen: set[str] = set()
            for record in _records(file, wanted):
                key = _key(record.get(columns["key"]), row, shard)
                yield _repeated(key, row, shard) if key in seen else make(key, record)
                seen.add(key)
                row += 1
    except _UNREADABLE as error:
        yield damage(shard, row, "damaged" if row else "unreadable", f"row {row}: {error}; the rest was not read")


def _records(file: pq.ParquetFile, wanted: list[str]) -> Iterator[Record]:
    present = [name for name in wanted if name in file.schema_arrow.names]
    if not present:
        yield from ({} for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME, columns=present):
        yield from batch.to_pylist()


def _key(given: object, row: int, shard: Shard) -> str:
    return str(given) if given is not None else f"{shard.name.rpartition('.')[0] or shard.name}-{row:08d}"


def _repeated(key: str, row: int, shard: Shard) -> Failure:
    return Failure(f"{key}@{row}", shard.name, "read", "duplicate_key", "the key stood earlier in this shard")


def _item(key: str, record: Record, shard: Shard, annotations: Annotations, columns: dict[str, str]) -> Item:
    image = record[columns["image"]]
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        return Failure(key, shard.name, "read", "no_image", f"column '{columns['image']}' holds no bytes")
    item = annotated(key, shard, data, _members(record.get(columns["label"])), annotations)
    boxes = record.get(columns["boxes"])
    if isinstance(item, Failure) or item.boxes_xyxy is not None or boxes is None:
        return item
    return _with_boxes(item, boxes)


def _members(label: object) -> dict[str, bytes]:
    """Write a label as a tar would hold it; whole floats are what pandas makes of integers beside missing ones."""
    if isinstance(label, float):
        label = None if math.isnan(label) else int(label) if label.is_integer() else label
    return {} if label is None else {"cls": str(label).encode()}


def _with_boxes(sample: Sample, boxes: object) -> Item:
    try:
        rows = [list(box) for box in boxes]  # type: ignore[attr-defined]
        return replace(sample, boxes_xyxy=checked(tuple(map(parse_box, rows))))
    except (TypeError, BadAnnotationError) as error:
        return Failure(sample.key, sample.shard, "read", "boxes", str(error))
