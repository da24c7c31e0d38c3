"""The rows of a manifest: CSV or TSV with any usual separator and encoding, JSON lines, or Parquet."""

import codecs
import csv
import io
import itertools
import json
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from pipeline.data.sources.manifest_columns import is_known, seems_a_path
from pipeline.data.sources.manifest_parquet import TableSandbox, UnreadableTableError
from pipeline.data.sources.objects import bucket, is_url, split_url
from pipeline.data.sources.wrong_rows import WrongRowError
from pipeline.errors import ConfigError

WHERE = "data.manifest"
Record = dict[str, Any]

TEXTS = (".csv", ".tsv", ".txt")
LINES = (".jsonl", ".ndjson")
_SEPARATORS = ",;\t"
_HEAD_BYTES = 64 << 10
_HEAD_ROWS = 100
_FEW_ZEROS = 10
"""Of a text in UTF-16, more than every tenth byte is zero: those of separators, digits and suffixes."""
_NO_SEPARATOR = "\x1f"
"""Separates nothing: it occurs in no text that people write."""
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class ManifestTable:
    """The columns of a manifest, and its rows with their numbers; a row that cannot be read is an error."""

    names: tuple[str, ...]
    rows: Iterator[tuple[int, Record | WrongRowError]]
    source: Iterator[object]
    """What the rows are read from; closing it closes the file."""

    def close(self) -> None:
        """Close the file, if not all rows are read."""
        if isinstance(self.source, Generator):
            self.source.close()


def open_table(location: str, header: Sequence[str] | None) -> ManifestTable:
    """Open a manifest at a path or a URL.

    Args:
        location: its path or URL.
        header: the names of its columns, if it has no header.

    Raises:
        ConfigError: it cannot be read, is of an unknown kind, is empty, or has another number of columns.
        StoreError: its store cannot be reached.
    """
    suffix = PurePosixPath(location).suffix.lower()
    if suffix not in (*TEXTS, *LINES, ".parquet"):
        raise ConfigError.one(WHERE, f"'{location}' is no list of images", "expected .csv, .tsv, .jsonl or .parquet")
    file = _open(location)
    if suffix == ".parquet":
        file.close()
        return _from_parquet(location)
    text = _decoded(location, file)
    return _from_lines(location, text) if suffix in LINES else _from_text(location, text, header)


def _open(location: str) -> BinaryIO:
    try:
        if is_url(location):
            url, name = split_url(location)
            return io.BytesIO(bucket(url, WHERE).read(name))
        if not stat.S_ISREG(Path(location).stat().st_mode):
            raise ConfigError.one(WHERE, f"'{location}' is not a file", "give the path of a list of images")
        return Path(location).open("rb")
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ConfigError.one(WHERE, f"cannot read '{location}': {reason}") from None


def _decoded(location: str, file: BinaryIO) -> Iterator[str]:
    """Yield the lines of a text in UTF-8 or UTF-16, with their ends."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    try:
        with io.TextIOWrapper(file, encoding=_encoding(head), newline="") as text:
            yield from text
    except UnicodeDecodeError as error:
        raise ConfigError.one(
            WHERE, f"'{location}' is not {error.encoding.upper()}: {error.reason} at byte {error.start} of a block",
            "save it as UTF-8",
        ) from None  # fmt: skip
    except OSError as error:
        raise ConfigError.one(WHERE, f"cannot read '{location}': {error.strerror or error}") from None


def _encoding(head: bytes) -> str:
    """Find the encoding of a text by its byte order mark, or by the zero bytes of UTF-16."""
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if marked is not None or head.count(0) < len(head) / _FEW_ZEROS:
        return marked or "utf-8"
    return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"


def _from_text(location: str, lines: Iterator[str], header: Sequence[str] | None) -> ManifestTable:
    head = list(itertools.islice(lines, _HEAD_ROWS))
    separator = _separator(head, PurePosixPath(location).suffix.lower())
    rows = _numbered(location, csv.reader(itertools.chain(head, lines), delimiter=separator))
    number, first = next(rows, (0, []))
    if not first:
        raise ConfigError.one(WHERE, f"'{location}' is empty")
    names = _names(location, first, header)
    if names is None:
        return ManifestTable(tuple(header or first), _records(header or first, rows), lines)
    return ManifestTable(names, _records(names, itertools.chain([(number, first)], rows)), lines)


def _names(location: str, first: list[str], header: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names of the columns if the first row is an image; None if it is a header.

    Raises:
        ConfigError: the first row has another number of cells than there are names, or seems to be an image.
    """
    if header is not None and len(header) != len(first):
        raise ConfigError.one(
            "data.columns",
            f"{len(header)} names, but the first row of '{location}' has {len(first)} cells: {_shown(first)}",
            f"name every column; the names are {', '.join(header)}",
        )
    if header is not None:
        same = [cell.lower() for cell in first] == [name.lower() for name in header]
        is_header = any(map(is_known, first)) and not any(map(seems_a_path, first))
        return None if same or is_header else tuple(header)
    if not any(map(is_known, first)) and any(map(seems_a_path, first)):
        raise ConfigError.one(
            "data.columns",
            f"'{location}' has no header: its first row is {_shown(first)}",
            "name its columns, such as columns: [path, label]",
        )
    return None


def _shown(cells: Sequence[str]) -> str:
    return ", ".join(f"'{cell[:60]}'" for cell in cells[:6]) + (", ..." if len(cells) > 6 else "")


def _separator(head: Sequence[str], suffix: str) -> str:
    """Find the separator that splits every one of the first lines, most often."""
    preferred = "\t,;" if suffix == ".tsv" else _SEPARATORS
    if suffix == ".txt":  # lists of Caffe and Darknet separate by a space
        preferred += " "

    def least(separator: str) -> int:
        rows = [row for row in csv.reader(head, delimiter=separator) if row]
        return min(map(len, rows), default=1)

    try:
        best = max(preferred, key=least)
        return best if least(best) > 1 else _NO_SEPARATOR
    except csv.Error:
        return preferred[0]  # reading reports it, with its place


def _numbered(location: str, reader: Any) -> Iterator[tuple[int, list[str]]]:  # noqa: ANN401 - csv names no type
    """Yield the rows that are not empty with the number of their last line."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ConfigError.one(WHERE, f"cannot read '{location}', line {reader.line_num}: {error}") from None
        if any(cell.strip() for cell in row):
            yield reader.line_num, [cell.strip() for cell in row]


def _records(
    names: Sequence[str], rows: Iterable[tuple[int, list[str]]]
) -> Iterator[tuple[int, Record | WrongRowError]]:
    for number, row in rows:
        if len(row) > len(names):
            yield number, WrongRowError(f"it has {len(row)} cells, but there are {len(names)} columns")
        else:
            yield number, dict(zip(names, row, strict=False))


def _from_lines(location: str, lines: Iterator[str]) -> ManifestTable:
    rows = _objects(lines)
    head = list(itertools.islice(rows, _HEAD_ROWS))
    names = dict.fromkeys(name for _, record in head if isinstance(record, dict) for name in record)
    if not names:
        raise ConfigError.one(WHERE, f"'{location}' has no line that is a JSON object")
    return ManifestTable(tuple(names), itertools.chain(head, rows), lines)


def _objects(lines: Iterator[str]) -> Iterator[tuple[int, Record | WrongRowError]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        yield number, fields if isinstance(fields, dict) else WrongRowError("the line is not a JSON object")


def _from_parquet(location: str) -> ManifestTable:
    sandbox = TableSandbox(location)
    try:
        rows = _parquet_rows(location, sandbox)
        return ManifestTable(tuple(sandbox.names()), rows, rows)
    except UnreadableTableError as error:
        sandbox.close()
        raise ConfigError.one(WHERE, f"'{location}' is not a Parquet file: {error}") from None


def _parquet_rows(location: str, sandbox: TableSandbox) -> Iterator[tuple[int, Record | WrongRowError]]:
    number = 0
    try:
        for number, record in enumerate(sandbox.rows(), 1):
            yield number, record
    except UnreadableTableError as error:
        raise ConfigError.one(WHERE, f"cannot read row {number + 1} of '{location}': {error}") from None
    finally:
        sandbox.close()
