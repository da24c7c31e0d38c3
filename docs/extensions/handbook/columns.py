"""The reference of columns and views: what a run's rows hold, and what SQL sees of them."""

from collections.abc import Iterator, Mapping
from functools import cache

import duckdb
import pyarrow as pa

from handbook.markdown import code, escaped, table
from pipeline.metrics import METRICS
from pipeline.results.views import RUN_COLUMNS, VIEWS, view_statements
from schemas.explanation import ERROR_FIELDS, IDENTITY_FIELDS, MAP_FIELDS, METADATA_FIELD, explanation_schema
from schemas.sanity import SANITY_SCHEMA

_GROUPS = {
    "The image and the class that is explained": IDENTITY_FIELDS,
    "The map": MAP_FIELDS,
    "What failed": ERROR_FIELDS,
    "Further columns of the image": (METADATA_FIELD,),
}


@cache
def columns_of_views() -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Return the columns of every view with their types, as DuckDB describes them, for a run with every metric."""
    fields = [pa.field(name, pa.list_(pa.float32()) if kind.curve else pa.float32()) for name, kind in METRICS.items()]
    parts = explanation_schema(fields, has_metadata=True)
    for name in reversed(RUN_COLUMNS):
        parts = parts.insert(0, pa.field(name, pa.string()))
    with duckdb.connect(":memory:") as connection:
        connection.register("parts", parts.empty_table())
        connection.register("sanity", SANITY_SCHEMA.empty_table())
        for statement in view_statements(
            scalar_metrics=True, correct="true", run_columns=RUN_COLUMNS, has_metadata=True
        ):
            connection.execute(statement)
        return {view: tuple(_described(connection, view)) for view in VIEWS}


def page() -> str:
    """Write the page."""
    parts = ["## Columns of a part\n"]
    for title, fields in _GROUPS.items():
        rows = [[code(field.name), _type(field.type), *_meta(field)] for field in fields]
        parts.append(f"### {title}\n\n{table(['column', 'type', 'unit', 'meaning'], rows)}\n")
    metrics = [[f"[`{name}`](metrics.md#{name})", escaped(kind.unit)] for name, kind in METRICS.items()]
    parts.append(f"### One column for each metric of the run\n\n{table(['column', 'unit'], metrics)}\n\n## Views\n")
    for view, columns in columns_of_views().items():
        rows = [[code(name), code(kind)] for name, kind in columns if name not in METRICS]
        parts.append(f"(view-{view})=\n### `{view}`\n\n{table(['column', 'type in SQL'], rows)}\n")
    return "\n".join(parts)


def _described(connection: duckdb.DuckDBPyConnection, view: str) -> Iterator[tuple[str, str]]:
    for name, kind, *_ in connection.execute("SELECT * FROM (DESCRIBE " + view + ")").fetchall():
        yield name, kind


def _type(kind: pa.DataType) -> str:
    return code(str(kind))


def _meta(field: "pa.Field[pa.DataType]") -> list[str]:
    return [escaped((field.metadata or {}).get(name, b"").decode()) for name in (b"unit", b"meaning")]
