"""Tables on their way out: to a terminal, as CSV, JSON or Parquet."""

import csv
import datetime
import decimal
import io
import itertools
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from jobs.support.console import out, printable
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

AsCsv = Annotated[bool, typer.Option("--csv", help="print CSV")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object per row")]
Output = Annotated[str | None, typer.Option("--out", help="write a .csv, .json or .parquet file")]
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def give(answer: "pa.Table", *, as_csv: bool, as_json: bool, output: str | None) -> None:
    """Print a table, or write it to a file and print its name."""
    if as_csv and as_json:
        raise ConfigError.one("--csv, --json", "only one of them can be printed")
    answer = _distinct(answer)
    if output is not None:
        _write(answer, Path(output))
    elif as_csv:
        write_csv(answer, sys.stdout)
    elif as_json:
        _to_json(answer, sys.stdout)
    else:
        _to_terminal(answer)


def _distinct(answer: "pa.Table") -> "pa.Table":
    """Give columns of the same name different ones, so that none is lost on the way out."""
    names: list[str] = []
    for name in answer.column_names:
        tries = itertools.chain([name], (f"{name}_{count}" for count in itertools.count(1)))
        names.append(next(other for other in tries if other not in names))
    return answer.rename_columns(names)


def _write(answer: "pa.Table", path: Path) -> None:
    writers = {".csv": write_csv, ".json": _to_json}
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(answer, path)
        elif path.suffix in writers:
            with path.open("w", newline="", encoding="utf-8") as file:
                writers[path.suffix](answer, file)
        else:
            raise ConfigError.one("--out", f"'{path}' has no known suffix", ".csv, .json or .parquet")
    except OSError as error:
        raise ConfigError.one("--out", f"cannot write '{path}': {error.strerror or error}") from None
    out.print(str(path))


def write_csv(answer: "pa.Table", file: IO[str]) -> None:
    """Write CSV; texts that a spreadsheet would take for a formula get an apostrophe in front."""
    file.write(_csv_line(answer.column_names))
    for row in answer.to_pylist():
        file.write(_csv_line([_plain(value) for value in row.values()]))


def _csv_line(cells: Sequence[object]) -> str:
    """Write one line; csv quotes carriage returns and line feeds in a cell only when it ends lines with both."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow([_inert(cell) for cell in cells])
    return line.getvalue()[:-2] + "\n"


def _to_json(answer: "pa.Table", file: IO[str]) -> None:
    for row in answer.to_pylist():
        file.write(json.dumps(_for_json(row), ensure_ascii=False, allow_nan=False) + "\n")


def _to_terminal(answer: "pa.Table") -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for field in answer.schema:
        numeric = str(field.type).startswith(("int", "uint", "float", "double", "decimal"))
        table.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    for row in answer.to_pylist():
        table.add_row(*(_short(_plain(value)) for value in row.values()))
    out.print(table)


def _plain(value: object) -> Any:  # noqa: ANN401 - what JSON knows
    """Write values that JSON does not know: bytes as hexadecimal digits, times as ISO 8601."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    return value


def _for_json(value: object) -> Any:  # noqa: ANN401 - what JSON knows
    """Write nested values for JSON too: exact whole numbers stay so, NaN and infinity become null."""
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


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _short(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = printable(text[:81].replace("\n", "\\n"))
    return text if len(text) <= 80 else text[:77] + "..."
