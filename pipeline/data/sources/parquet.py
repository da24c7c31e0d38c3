"""Reads Parquet files with a column of encoded images (bytes, or a struct with a field `bytes`)."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.sources.annotations import Annotations, annotated
from pipeline.data.sources.box_formats import BadAnnotationError, Form
from pipeline.data.sources.cells import boxes_cell, cell_of, labels_cell, labels_in_order, metadata_of, one_hot
from pipeline.data.sources.hive import partition_columns
from pipeline.data.sources.objects import is_url, open_shard
from pipeline.data.sources.shards import Described, Failure, Item, Metadata, Sample, Shard, damage, reader_died

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
    more: Mapping[str, Any] = {}
    """The columns of labels and of the classes of boxes, where they are named, and the metadata."""


Rows = Callable[[Shard, Columns, bool], Iterator[Row]]
"""A source of rows, called with the shard, the column names, and whether only keys are needed."""


class ReaderDiedError(Exception):
    """The process that read a Parquet file died."""


def rows_in_process(shard: Shard, columns: Columns, only_keys: bool) -> Iterator[Row]:
    """Stream the rows of one Parquet file in this process.

    Raises:
        ArrowException, OSError, ValueError, OverflowError: the file, or its next row, cannot be read.
    """
    with pq.ParquetFile(open_shard(shard) if is_url(shard.location) else shard.location) as file:
        if columns["image"] not in file.schema_arrow.names:
            raise ValueError(f"no column '{columns['image']}'")
        wanted = [columns["key"]] if only_keys else _flat(columns)
        partitions = partition_columns(shard.location)
        for number, record in enumerate(_records(file, wanted)):
            yield _row({**partitions, **record}, columns, number, shard)


def read_parquet(
    shard: Shard, annotations: Annotations, columns: Columns, rows: Rows = rows_in_process
) -> Iterator[Item]:
    """Stream the samples of one Parquet file.

    Args:
        shard: the file.
        annotations: labels and boxes from CSV files, which take precedence over columns.
        columns: names of the columns `image`, `key`, `label`, `boxes` (only `image` must exist in the file), and of
            `labels`, `box_labels` and `metadata` if the run file names them. Hive folders hold columns, too.
            Without a key column, the key is the file's stem and the row number.
        rows: source of the rows.
    """
    return _items(shard, rows(shard, columns, False), lambda row: _item(row, shard, annotations, columns))


def list_parquet(shard: Shard, columns: Columns, rows: Rows = rows_in_process) -> Iterator[Item]:
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
    there = file.schema_arrow.names
    outermost = [name if name in there else name.partition(".")[0] for name in wanted]
    present = list(dict.fromkeys(name for name in outermost if name in there))
    if not present:
        yield from ({} for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=present):
        yield from batch.to_pylist()


def _flat(columns: Columns) -> list[str]:
    """Return the names of all columns."""
    return [name for names in columns.values() for name in ([names] if isinstance(names, str) else names)]


def _row(record: Record, columns: Columns, number: int, shard: Shard) -> Row:
    image = record.get(columns["image"])
    data = image.get("bytes") if isinstance(image, dict) else image
    key = _key(record.get(columns["key"]), number, shard)
    label, boxes = cell_of(record, columns["label"]), _cell(record, columns["boxes"])
    more: Record = {role: _cell(record, columns[role]) for role in ("labels", "box_labels") if role in columns}
    if "metadata" in columns:
        more["metadata"] = metadata_of(record, columns["metadata"])
    return Row(
        key, data if isinstance(data, bytes) else None, label, [boxes] if _is_row(boxes, columns) else boxes, more
    )


def _cell(record: Record, names: str | list[str]) -> object:
    """Return what one column holds, or what several hold, in their order."""
    return cell_of(record, names) if isinstance(names, str) else [cell_of(record, name) for name in names]


def _is_row(boxes: object, columns: Columns) -> bool:
    """Return whether the boxes are one box in four columns, whose first cell is not empty."""
    return not isinstance(columns["boxes"], str) and isinstance(boxes, list) and boxes[0] is not None


def _key(given: object, row: int, shard: Shard) -> str:
    return str(given) if given is not None else f"{shard.name.rpartition('.')[0] or shard.name}-{row:08d}"


def _repeated(key: str, row: int, shard: Shard) -> Failure:
    return Failure(f"{key}@{row}", shard.name, "read", "duplicate_key", "the key occurs earlier in this shard")


def _item(row: Row, shard: Shard, annotations: Annotations, columns: Columns) -> Item:
    if row.image is None:
        return Failure(
            row.key, shard.name, "read", "no_image", f"column '{columns['image']}' contains no bytes", _metadata(row)
        )
    form = annotations.form
    try:
        said = _said(row, columns, form)
    except BadAnnotationError as error:
        return Failure(row.key, shard.name, "read", error.code, str(error), _metadata(row))
    members = _members(row.label) if said.labels is None else {}
    return annotated(row.key, shard, row.image, members, annotations, said)


def _said(row: Row, columns: Columns, form: Form) -> Described:
    """Return what a row says of its image besides its label.

    Raises:
        BadAnnotationError: a cell is no list of labels or boxes.
    """
    boxes = None if row.boxes == [None] * 4 else boxes_cell(row.boxes, form.order)
    box_labels = row.more.get("box_labels") if boxes is not None else None
    return Described(
        labels=_labels(row, columns, form.separator),
        boxes_xyxy=boxes,
        box_labels=None if box_labels is None else labels_in_order(box_labels, form.separator),
        relative=form.relative,
        metadata=_metadata(row),
    )


def _metadata(row: Row) -> Metadata:
    return tuple((name, text) for name, text in row.more.get("metadata", ()))


def _labels(row: Row, columns: Columns, separator: str | None) -> tuple[str, ...] | None:
    if isinstance(columns.get("labels"), list):
        return one_hot(dict(zip(columns["labels"], row.more["labels"], strict=True)), columns["labels"])
    cell = row.more.get("labels", row.label)
    return labels_cell(cell, separator) if "labels" in columns or separator or isinstance(cell, list) else None


def _members(label: object) -> dict[str, bytes]:
    """Return a label as a member of a tar; pandas stores integers with missing values as whole floats."""
    if isinstance(label, float):
        label = None if math.isnan(label) else int(label) if label.is_integer() else label
    return {} if label is None else {"cls": str(label).encode()}
