"""Write a table to the terminal, or as CSV, JSON or Parquet."""

import csv
import datetime
import decimal
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from jobs.support.console import out, printable
from pipeline.errors import ConfigError, Mistake
from schemas.key_file import escaped

if TYPE_CHECKING:
    import pyarrow as pa

AsCsv = Annotated[bool, typer.Option("--csv", help="print CSV")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON lines, one object per row")]
Output = Annotated[str | None, typer.Option("--out", help="write a .csv, .json or .parquet file instead")]
Force = Annotated[bool, typer.Option("--force", help="let --out replace a file that is there")]
_SUFFIXES = (".csv", ".json", ".parquet")


def check_output(output: str | None, *, as_csv: bool, as_json: bool, force: bool) -> None:
    """Raise ConfigError with all mistakes in the options of an output, before the work; see `output_table`."""
    mistakes = []
    if as_csv and as_json:
        mistakes.append(Mistake("--csv, --json", "only one of them can be used at a time"))
    if output is not None and Path(output).suffix not in _SUFFIXES:
        mistakes.append(Mistake("--out", f"'{output}' has an unknown suffix", "use .csv, .json or .parquet"))
    elif output is not None and not force and os.path.lexists(output):
        mistakes.append(Mistake("--out", f"'{output}' is already there", "give another name, or --force to replace it"))
    if mistakes:
        raise ConfigError(mistakes)


def output_table(
    table: "pa.Table", *, as_csv: bool = False, as_json: bool = False, output: str | None = None, force: bool = False
) -> None:
    """Print a table, or write it to a file and print the file's name; a file that is there is kept without `force`."""
    check_output(output, as_csv=as_csv, as_json=as_json, force=force)
    table = _distinct(table)
    if output is not None:
        _write(table, Path(output))
    elif as_csv:
        write_csv(table, sys.stdout)
    elif as_json:
        _to_json(table, sys.stdout)
    else:
        _to_terminal(table)


def _distinct(table: "pa.Table") -> "pa.Table":
    """Number columns that share a name, so that none is lost when rows become dictionaries."""
    names: list[str] = []
    for name in table.column_names:
        candidates = itertools.chain([name], (f"{name}_{count}" for count in itertools.count(1)))
        names.append(next(candidate for candidate in candidates if candidate not in names))
    return table.rename_columns(names)


def _write(table: "pa.Table", path: Path) -> None:
    writers = {".csv": write_csv, ".json": _to_json}
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, path)
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writers[path.suffix](table, file)
    except OSError as error:
        raise ConfigError.one("--out", f"cannot write '{path}': {error.strerror or error}") from None
    out.print(str(path))


def write_csv(table: "pa.Table", file: IO[str]) -> None:
    """Write CSV; text that a spreadsheet would read as a formula gets a leading apostrophe."""
    file.write(_csv_line(table.column_names))
    for row in table.to_pylist():
        file.write(_csv_line([_plain(value) for value in row.values()]))


def _csv_line(cells: Sequence[object]) -> str:
    """Format one line, ending with a line feed.

    The csv module quotes both carriage returns and line feeds in a cell only when the line terminator holds both.
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([_escape_formula(cell) for cell in cells])
    return line.getvalue()[:-2] + "\n"


def _to_json(table: "pa.Table", file: IO[str]) -> None:
    for row in table.to_pylist():
        file.write(json.dumps(_for_json(row), ensure_ascii=False, allow_nan=False) + "\n")


def _to_terminal(table: "pa.Table") -> None:
    printed = Table(box=None, pad_edge=False, header_style="bold")
    for field in table.schema:
        numeric = str(field.type).startswith(("int", "uint", "float", "double", "decimal"))
        printed.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    for row in table.to_pylist():
        printed.add_row(*(_short(_plain(value)) for value in row.values()))
    out.print(printed)


def _plain(value: object) -> Any:  # noqa: ANN401 - any type of JSON
    """Convert values that JSON does not know: bytes to hexadecimal digits, times to ISO 8601."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    return value


def _for_json(value: object) -> Any:  # noqa: ANN401 - any type of JSON
    """Convert nested values for JSON: whole decimals become integers, NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(name): _for_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_json(inner) for inner in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    plain = _plain(value)
    return plain if plain is None or isinstance(plain, (str, bool, int)) else str(plain)


def _escape_formula(value: object) -> object:
    return escaped(value) if isinstance(value, str) else value


def _short(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = printable(text[:81].replace("\n", "\\n"))
    return text if len(text) <= 80 else text[:77] + "..."
