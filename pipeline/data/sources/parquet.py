"""Reads Parquet files with a column of encoded images (bytes, or a struct with a field `bytes`)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.sources.annotations import Annotations, annotated
from pipeline.data.sources.members import BadAnnotationError, checked, parse_box
from pipeline.data.sources.objects import is_url, open_shard
from pipeline.data.sources.shards import Failure, Item, Sample, Shard, damage, reader_died

Record = dict[str, Any]
Columns = dict[str, Any]
"""Names of columns by role; several names for the boxes or labels that several columns hold."""

ROWS_AT_A_TIME = 64
UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""The exceptions of Arrow; the last two for text that is not UTF-8 and for dates out of range."""


class Row(NamedTuple):
    """One row of a Parquet file: key, encoded image, label and boxes, as stored."""

    key: str
    image: bytes | None
    label: object
    boxes: object


Rows = Callable[[Shard, dict[str, str], bool], Iterator[Row]]
"""A source of rows, called with the shard, the column names, and whether only keys are needed."""


class ReaderDiedError(Exception):
    """The process that read a Parquet file died."""


def rows_in_process(shard: Shard, columns: dict[str, str], only_keys: bool) -> Iterator[Row]:
    """Stream the rows of one Parquet file in this process.

    Raises:
        ArrowException, OSError, ValueError, OverflowError: the file, or its next row, cannot be read.
    """
    with pq.ParquetFile(open_shard(shard) if is_url(shard.location) else shard.location) as file:
        if columns["image"] not in file.schema_arrow.names:
            raise ValueError(f"no column '{columns['image']}'")
        wanted = [columns["key"]] if only_keys else list(columns.values())
        for number, record in enumerate(_records(file, wanted)):
            yield _row(record, columns, number, shard)


def read_parquet(
    shard: Shard, annotations: Annotations, columns: dict[str, str], rows: Rows = rows_in_process
) -> Iterator[Item]:
    """Stream the samples of one Parquet file.

    Args:
        shard: the file.
        annotations: labels and boxes from CSV files, which take precedence over columns.
        columns: names of the columns `image`, `key`, `label`, `boxes` (only `image` must exist in the file).
            Without a key column, the key is the file's stem and the row number.
        rows: source of the rows.
    """
    return _items(shard, rows(shard, columns, False), lambda row: _item(row, shard, annotations, columns))


def list_parquet(shard: Shard, columns: dict[str, str], rows: Rows = rows_in_process) -> Iterator[Item]:
    """Stream the keys of one Parquet file as samples without content; other columns are not read."""
    return _items(shard, rows(shard, columns, True), lambda row: Sample(row.key, shard.name, b"", None, None))


def _items(shard: Shard, rows: Iterator[Row], make: Callable[[Row], Item]) -> Iterator[Item]:
    """Convert the rows of a file to items; a repeated key is a failure."""
    count = 0
    seen: set[str] = set()
    try:
        for row in rows:
            yield _repeated(row.key, count, shard) if row.key in seen else make(row)
            seen.add(row.key)
            count += 1
    except ReaderDiedError:
        yield reader_died(shard, count)
    except UNREADABLE as error:
        yield damage(shard, count, "damaged" if count else "unreadable", f"row {count}: {error}; the rest was not read")


def _records(file: pq.ParquetFile, wanted: list[str]) -> Iterator[Record]:
    present = [name for name in wanted if name in file.schema_arrow.names]
    if not present:
        yield from ({} for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=present):
        yield from batch.to_pylist()


def _row(record: Record, columns: dict[str, str], number: int, shard: Shard) -> Row:
    image = record.get(columns["image"])
    data = image.get("bytes") if isinstance(image, dict) else image
    key = _key(record.get(columns["key"]), number, shard)
    label, boxes = record.get(columns["label"]), record.get(columns["boxes"])
    return Row(key, data if isinstance(data, bytes) else None, label, boxes)


def _key(given: object, row: int, shard: Shard) -> str:
    return str(given) if given is not None else f"{shard.name.rpartition('.')[0] or shard.name}-{row:08d}"


def _repeated(key: str, row: int, shard: Shard) -> Failure:
    return Failure(f"{key}@{row}", shard.name, "read", "duplicate_key", "the key occurs earlier in this shard")


def _item(row: Row, shard: Shard, annotations: Annotations, columns: dict[str, str]) -> Item:
    if row.image is None:
        return Failure(row.key, shard.name, "read", "no_image", f"column '{columns['image']}' contains no bytes")
    item = annotated(row.key, shard, row.image, _members(row.label), annotations)
    if isinstance(item, Failure) or item.boxes_xyxy is not None or row.boxes is None:
        return item
    return _with_boxes(item, row.boxes)


def _members(label: object) -> dict[str, bytes]:
    """Return a label as a member of a tar; pandas stores integers with missing values as whole floats."""
    if isinstance(label, float):
        label = None if math.isnan(label) else int(label) if label.is_integer() else label
    return {} if label is None else {"cls": str(label).encode()}


def _with_boxes(sample: Sample, boxes: object) -> Item:
    try:
        rows = [list(box) for box in boxes]  # type: ignore[attr-defined]
        return replace(sample, boxes_xyxy=checked(tuple(map(parse_box, rows))))
    except (TypeError, BadAnnotationError) as error:
        return Failure(sample.key, sample.shard, "read", "boxes", str(error))
