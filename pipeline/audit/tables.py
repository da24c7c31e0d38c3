"""Tables of the report: rows with the SQL that gives them, and names of classes."""

from typing import Any

from pipeline.results.query import Run

Table = dict[str, Any]
"""`rows`, and the `sql` that gives them; rows may hold further fields that were computed from them."""


def asked(run: Run, sql: str) -> Table:
    """Ask a question, and keep it with its answer."""
    return {"rows": run.arrow(sql).to_pylist(), "sql": tidy(sql)}


def tidy(sql: str) -> str:
    """Write a query on one line."""
    return " ".join(sql.split())


def quoted(label: str) -> str:
    """Quote the label of a metric as the name of a column."""
    return '"' + label.replace('"', '""') + '"'


def class_name(run: Run, index: int | None) -> str:
    """Name a class by index; the index itself when names are unknown."""
    if index is None or index < 0:
        return "-"
    name = run.manifest.class_name(index)
    return f"class {index}" if name == str(index) else name


def rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Round every number of the facts to seven digits: sums in another order give the same page."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
