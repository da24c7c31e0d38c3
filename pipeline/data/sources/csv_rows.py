"""Reads the rows of CSV files, at a path or a URL."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence

from pipeline.data.sources.objects import open_text, read_text
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


def read_rows(
    where: str, path: str, columns: tuple[str, ...], further: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[tuple[str, ...]]:
    """Stream columns of a CSV file, which may have a million rows: their names, then its rows without blank ones.

    Args:
        where: the setting that names the file.
        path: its path or URL.
        columns: the columns that it must have.
        further: chooses further columns from the header.

    Raises:
        ConfigError: the file is missing, is not UTF-8, has no rows, or lacks a column.
    """
    with open_text(where, path) as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            row = next(reader, None)
            _require(where, path, () if row is None else header, columns)
            names = (*columns, *further([name for name in header if name not in columns]))
            places = [len(header) - 1 - header[::-1].index(name) for name in names]  # the last one of a name counts
            yield names
            while row is not None:
                if row:
                    yield tuple(row[place] if place < len(row) else "" for place in places)
                row = next(reader, None)
        except (csv.Error, OSError, UnicodeDecodeError) as error:
            raise ConfigError.one(where, f"cannot read '{path}': {error}") from None


def _require(where: str, path: str, header: Sequence[str] | dict[str, str], columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise ConfigError.one(where, f"'{path}' has no column {', '.join(missing)}", f"expected {','.join(columns)}")
