"""Reads tables of images: Parquet files, and Arrow files that the library `datasets` saved.

The image is bytes, a struct with a field `bytes`, as the library writes it, or the path of a file beside the table.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.beside import file_beside
from pipeline.data.sources.box_formats import BadAnnotationError, Form
from pipeline.data.sources.cells import boxes_cell, cell_of, labels_cell, labels_in_order, metadata_of, one_hot
from pipeline.data.sources.columns import (
    DEFAULT_COLUMNS,
    Columns,
    ImageColumn,
    all_different,
    facts_of,
    image_column,
    key_column,
    label_column,
    names_of,
)
from pipeline.data.sources.hive import partition_columns
from pipeline.data.sources.other_names import columns_of_names, contradiction
from pipeline.data.sources.shards import Described, Extent, Failure, Item, Metadata, Sample, Shard, damage, reader_died
from pipeline.data.sources.stored_names import names_to_read_by
from pipeline.data.sources.tables import ROWS_AT_A_TIME, Record, Table, open_table

__all__ = ["ROWS_AT_A_TIME", "UNREADABLE", "ReaderDiedError", "Row", "Rows", "list_parquet", "read_parquet"]

UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)
"""The exceptions of Arrow; the last two for text that is not UTF-8 and for dates out of range."""


class Row(NamedTuple):
    """One row of a table: key, encoded image, label and boxes, as stored; `problem` is why the image is missing."""

    key: str
    image: bytes | None
    label: object
    boxes: object
    problem: str = ""
    more: Mapping[str, Any] = {}
    """The columns of labels and of the classes of boxes, where they are named, other names of the class, metadata."""


Rows = Callable[[Shard, Columns, bool], Iterator[Row]]
"""A source of rows, called with the shard, the column names, and whether only keys are needed."""


class ReaderDiedError(Exception):
    """The process that read a Parquet file died."""


def rows_in_process(shard: Shard, columns: Columns, only_keys: bool) -> Iterator[Row]:
    """Stream the rows of one Parquet file in this process.

    Raises:
        ArrowException, OSError, ValueError, OverflowError: the file, or its next row, cannot be read.
    """
    with open_table(shard) as table:
        image = image_column(table.schema, columns["image"])
        key = key_column(table.schema, columns["key"])
        by_path = key is None and image.has_path and _paths_are_keys(table, image)
        only = [image_path(image)] if by_path else [key or ""]
        partitions = partition_columns(shard.location)
        found = _roles(table, image, key, partitions, columns)
        wanted = only if only_keys else _outermost(found, table)
        for number, record in enumerate(_records(table, wanted)):
            row = _row({**partitions, **record}, found, number, shard)
            yield _with_path(row, record, image, shard, by_path, only_keys) if image.has_path else row


def row_in_process(shard: Shard, columns: Columns, number: int, wanted_key: str) -> Row | None:
    """Read one row of a table by its number; None if the table is shorter, or the row has another key.

    Of a Parquet file, only the row group of the row is read, up to the row. Whether paths are keys is not looked up in
    all rows: a row has its key, or its path is the key.

    Raises:
        ArrowException, OSError, ValueError, OverflowError: the file cannot be read.
    """
    with open_table(shard) as table:
        image = image_column(table.schema, columns["image"])
        key = key_column(table.schema, columns["key"])
        partitions = partition_columns(shard.location)
        found = _roles(table, image, key, partitions, columns)
        record = next(_records(table, _outermost(found, table), number), None)
        if record is None:
            return None
        row = _row({**partitions, **record}, found, number, shard)
        by_path = key is None and image.has_path and _path(record.get(image.name)) == wanted_key
        row = _with_path(row, record, image, shard, by_path, False) if image.has_path else row
        return row if row.key == wanted_key else None


def _roles(
    table: Table, image: ImageColumn, key: str | None, partitions: Mapping[str, Any], columns: Columns
) -> Columns:
    """Return the columns of a table by role, with those that it has by another name, and other names of the class."""
    label = columns["label"]
    if label not in partitions:
        label = label_column(facts_of(table.schema), label)
    is_named = columns["label"] != DEFAULT_COLUMNS["label"]
    names = [] if is_named else [name for name in columns_of_names(table.schema.names) if name != label]
    return {**columns, "image": image.name, "key": key or "", "label": label, "names": names}


def image_path(image: ImageColumn) -> str:
    """Return the column, or the field of a struct, that holds the path of an image."""
    return f"{image.name}.path" if image.has_bytes and image.has_path else image.name


def _paths_are_keys(table: Table, image: ImageColumn) -> bool:
    """Return whether every image has a path of its own, which is then its key."""
    paths = (_path(record.get(image.name)) for record in table.records([image_path(image)]))
    return all_different(paths)


def _path(image: object) -> str | None:
    path = image.get("path") if isinstance(image, dict) else image
    return path if isinstance(path, str) else None


def _with_path(row: Row, record: Record, image: ImageColumn, shard: Shard, by_path: bool, only_keys: bool) -> Row:
    """Give a row the path of its image as its key, and read the image from there if the table does not hold it."""
    path = _path(record.get(image.name))
    if by_path and path is not None:
        row = row._replace(key=path)
    if only_keys or row.image is not None or not path:
        return row
    data, problem = file_beside(shard, path)
    return row._replace(image=data, problem=problem)


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
    names = names_to_read_by(shard, columns["label"], annotations.classes)
    return _items(shard, rows(shard, columns, False), lambda row: item_of(row, shard, annotations, columns, names))


def list_parquet(shard: Shard, columns: Columns, rows: Rows = rows_in_process) -> Iterator[Item]:
    """Stream the keys of one Parquet file as samples without content; other columns are not read."""
    return _items(shard, rows(shard, columns, True), lambda row: Sample(row.key, shard.name, b"", None, None))


def _items(shard: Shard, rows: Iterator[Row], make: Callable[[Row], Item]) -> Iterator[Item]:
    """Convert the rows of a file to items; a repeated key is a failure."""
    count = 0
    seen: set[str] = set()
    try:
        for row in rows:
            extent = Extent(image_bytes=None if row.image is None else len(row.image), image_row=count)
            yield _repeated(row.key, count, shard) if row.key in seen else replace(make(row), extent=extent)
            seen.add(row.key)
            count += 1
    except ReaderDiedError:
        yield reader_died(shard, count)
    except UNREADABLE as error:
        yield damage(shard, count, "damaged" if count else "unreadable", f"row {count}: {error}; the rest was not read")


def _records(table: Table, wanted: list[str], start: int = 0) -> Iterator[Record]:
    present = [name for name in dict.fromkeys(wanted) if name in table.schema.names or _is_field(name, table)]
    return table.records(present, start) if present else ({} for _ in range(start, table.rows()))


def _is_field(name: str, table: Table) -> bool:
    return "." in name and name.rpartition(".")[0] in table.schema.names and name.endswith(".path")


def _outermost(columns: Columns, table: Table) -> list[str]:
    """Return the columns of all roles; for a field of a column, such as `objects.bbox`, the column."""
    wanted = [name for names in columns.values() for name in names_of(names)]
    return [name if name in table.schema.names else name.partition(".")[0] for name in wanted]


def _row(record: Record, columns: Columns, number: int, shard: Shard) -> Row:
    image = record.get(columns["image"])
    data = image.get("bytes") if isinstance(image, dict) else image
    key = _key(record.get(columns["key"]), number, shard)
    label, boxes = cell_of(record, columns["label"]), _cell(record, columns["boxes"])
    more: Record = {role: _cell(record, columns[role]) for role in ("labels", "box_labels") if role in columns}
    more["names"] = {name: text for name in columns["names"] if isinstance(text := record.get(name), str)}
    if "metadata" in columns:
        more["metadata"] = metadata_of(record, columns["metadata"])
    boxes = [boxes] if _is_row(boxes, columns) else boxes
    return Row(key, data if isinstance(data, bytes) else None, label, boxes, more=more)


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


def item_of(row: Row, shard: Shard, annotations: Annotations, columns: Columns, names: Sequence[str]) -> Item:
    """Return the image of a row, or why it cannot be used; `names` stand for the numbers of its labels."""
    if row.image is None:
        problem = row.problem or f"column '{columns['image']}' contains no bytes"
        return Failure(row.key, shard.name, "read", "no_image", problem, _metadata(row))
    try:
        said = _said(row, columns, annotations.form)
    except BadAnnotationError as error:
        return Failure(row.key, shard.name, "read", error.code, str(error), _metadata(row))
    members = _members(row.label, names) if said.labels is None else {}
    item = annotated(row.key, shard, row.image, members, annotations, said)
    if not isinstance(item, Sample) or item.label is None or annotations.label_text(row.key) is not None:
        return item
    wrong = contradiction(item.label, row.more.get("names", {}), annotations.classes)
    return Failure(row.key, shard.name, "read", "label", f"the row has {wrong.text}", _metadata(row)) if wrong else item


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
    is_list = "labels" in columns or separator or isinstance(cell, list)
    return labels_cell(cell, separator, row.more.get("box_labels")) if is_list else None


def _members(label: object, names: Sequence[str]) -> dict[str, bytes]:
    """Return a label as a member of a tar; pandas stores integers with missing values as whole floats."""
    if isinstance(label, float):
        label = None if math.isnan(label) else int(label) if label.is_integer() else label
    if isinstance(label, int) and 0 <= label < len(names):
        label = names[label]
    return {} if label is None else {"cls": str(label).encode()}
