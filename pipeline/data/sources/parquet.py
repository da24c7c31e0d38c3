"""Reads tables of images: Parquet files, and Arrow files that the library `datasets` saved.

The image is bytes, a struct with a field `bytes`, as the library writes it, or the path of a file beside the table.
"""

import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipeline.data.sources.annotations import Annotations, annotated
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.columns import ImageColumn, all_different, facts_of, image_column, key_column, label_column
from pipeline.data.sources.members import BadAnnotationError, checked, parse_box
from pipeline.data.sources.objects import is_url
from pipeline.data.sources.shards import Failure, Item, Sample, Shard, damage, reader_died
from pipeline.data.sources.tables import ROWS_AT_A_TIME, Record, Table, open_table
from pipeline.data.sources.tar_members import MAX_MEMBER_BYTES

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


Rows = Callable[[Shard, dict[str, str], bool], Iterator[Row]]
"""A source of rows, called with the shard, the column names, and whether only keys are needed."""


class ReaderDiedError(Exception):
    """The process that read a Parquet file died."""


def rows_in_process(shard: Shard, columns: dict[str, str], only_keys: bool) -> Iterator[Row]:
    """Stream the rows of one Parquet file in this process.

    Raises:
        ArrowException, OSError, ValueError, OverflowError: the file, or its next row, cannot be read.
    """
    with open_table(shard) as table:
        image = image_column(table.schema, columns["image"])
        key = key_column(table.schema, columns["key"])
        by_path = key is None and image.has_path and _paths_are_keys(table, image)
        only = [image_path(image)] if by_path else [key or ""]
        label = label_column(facts_of(table.schema), columns["label"])
        found = {"image": image.name, "key": key or "", "label": label, "boxes": columns["boxes"]}
        wanted = only if only_keys else list(found.values())
        for number, record in enumerate(_records(table, wanted)):
            row = _row(record, found, number, shard)
            yield _with_path(row, record, image, shard, by_path, only_keys) if image.has_path else row


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
    data, problem = _file_beside(shard, path)
    return row._replace(image=data, problem=problem)


def _file_beside(shard: Shard, path: str) -> tuple[bytes | None, str]:
    """Read a file in the folder of a table; return its bytes, or why they are missing."""
    if is_url(shard.location) or is_url(path):
        return None, f"'{path[:200]}' is a path, and only files beside a table on a disk are read"
    folder = Path(shard.location).parent.resolve()
    try:
        file = Path(folder, path).resolve()
        if not file.is_relative_to(folder):
            return None, f"'{path[:200]}' leaves the folder of the table; list the images in data.manifest"
        # without O_NONBLOCK, opening a pipe would wait for a writer
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:  # noqa: PTH123
            facts = os.fstat(opened.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_MEMBER_BYTES:
                return None, f"'{path[:200]}' is no file, or larger than {MAX_MEMBER_BYTES} bytes"
            return opened.read(), ""
    except (OSError, ValueError) as error:
        return None, f"no bytes, and '{path[:200]}': {getattr(error, 'strerror', None) or error}"


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
    names = known_names(shard, columns["label"], annotations.classes)
    return _items(shard, rows(shard, columns, False), lambda row: _item(row, shard, annotations, columns, names))


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


def _records(table: Table, wanted: list[str]) -> Iterator[Record]:
    present = [name for name in dict.fromkeys(wanted) if name in table.schema.names or _is_field(name, table)]
    if not present:
        yield from ({} for _ in range(table.rows()))
        return
    yield from table.records(present)


def _is_field(name: str, table: Table) -> bool:
    return "." in name and name.rpartition(".")[0] in table.schema.names and name.endswith(".path")


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


def _item(row: Row, shard: Shard, annotations: Annotations, columns: dict[str, str], names: Sequence[str]) -> Item:
    if row.image is None:
        problem = row.problem or f"column '{columns['image']}' contains no bytes"
        return Failure(row.key, shard.name, "read", "no_image", problem)
    item = annotated(row.key, shard, row.image, _members(row.label, names), annotations)
    if isinstance(item, Failure) or item.boxes_xyxy is not None or row.boxes is None:
        return item
    return _with_boxes(item, row.boxes)


def known_names(shard: Shard, column: str, classes: ClassTable) -> Sequence[str]:
    """Return the class names that a table stores for its numbers, if the classes of the run have all of them.

    A table numbers its own classes: label 0 of a part of ImageNet is class 0 of ImageNet only by chance.
    """
    names = shard.table.names_of(label_column(shard.table, column)) if shard.table else ()
    return names if all(classes.index(name) is not None for name in names) else ()


def _members(label: object, names: Sequence[str]) -> dict[str, bytes]:
    """Return a label as a member of a tar; pandas stores integers with missing values as whole floats."""
    if isinstance(label, float):
        label = None if math.isnan(label) else int(label) if label.is_integer() else label
    if isinstance(label, int) and 0 <= label < len(names):
        label = names[label]
    return {} if label is None else {"cls": str(label).encode()}


def _with_boxes(sample: Sample, boxes: object) -> Item:
    try:
        rows = [list(box) for box in boxes]  # type: ignore[attr-defined]
        return replace(sample, boxes_xyxy=checked(tuple(map(parse_box, rows))))
    except (TypeError, BadAnnotationError) as error:
        return Failure(sample.key, sample.shard, "read", "boxes", str(error))
