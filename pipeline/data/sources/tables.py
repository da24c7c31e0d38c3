"""Reads the rows of CSV files, at a path or a URL."""

import csv
import io
from collections.abc import Iterator, Sequence

from pipeline.data.sources.objects import read_text
from pipeline.errors import ConfigError


def read_csv(where: str, path: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the rows of a CSV file at a path or a URL, and check that it has the given columns.

    Raises:
        ConfigError: the file is missing, has no rows, or lacks a column.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(where, path), newline="")))
    except csv.Error as error:
        raise ConfigError.one(where, f"cannot read '{path}': {error}") from None
    _require(where, path, rows[0] if rows else (), columns)
    return [{name: value or "" for name, value in row.items() if name is not None} for row in rows]


def read_rows(where: str, path: str, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Stream the given columns of a CSV file, which may have a million rows; blank lines are left out.

    Raises:
        ConfigError: the file is missing, has no rows, or lacks a column.
    """
    reader = csv.reader(io.StringIO(read_text(where, path), newline=""))
    try:
        header = next(reader, [])
        first = next((row for row in reader if row), None)
        _require(where, path, header if first else (), columns)
        places = [len(header) - 1 - header[::-1].index(name) for name in columns]  # as DictReader: the last one counts
        row = first
        while row is not None:
            if row:
                yield tuple(row[place] if place < len(row) else "" for place in places)
            row = next(reader, None)
    except csv.Error as error:
        raise ConfigError.one(where, f"cannot read '{path}': {error}") from None


def _require(where: str, path: str, header: Sequence[str] | dict[str, str], columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise ConfigError.one(where, f"'{path}' has no column {', '.join(missing)}", f"expected {','.join(columns)}")
