"""Tables of the report: rows with the SQL query that returns them, and names of classes."""

from typing import Any

from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run

Table = dict[str, Any]
"""`rows`, and the `sql` query that returns them; rows may have further, computed fields."""


def query_table(run: Run, sql: str) -> Table:
    """Run a query; returns its rows with the query itself."""
    return {"rows": run.arrow(sql).to_pylist(), "sql": tidy(sql)}


def tidy(sql: str) -> str:
    """Write a query on one line."""
    return " ".join(sql.split())


def class_name(run: Run, index: int | None) -> str:
    """Return the name of a class; `class INDEX` when it has no name, and `-` for no class."""
    if index is None or index < 0:
        return "-"
    name = run.manifest.class_name(index)
    return f"class {index}" if name == str(index) else name


def target_name(run: Run, index: int) -> str:
    """Return the name of what is explained: a class, or `output INDEX` of a model with raw outputs."""
    name = class_name(run, index)
    return f"output {index}" if name == f"class {index}" and not OutputKind.of(run.manifest).has_confidences else name


def label_name(run: Run, label: int | None) -> str | None:
    """Return the name of a label; the number itself for raw outputs, and None without a label."""
    if label is None:
        return None
    return class_name(run, label) if OutputKind.of(run.manifest).has_confidences else str(label)


def rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Round every number to seven significant digits, so that the order of additions does not change the page."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
