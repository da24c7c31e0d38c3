"""The reference of columns and views: what a run's rows hold, and what SQL sees of them."""

import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pyarrow as pa

from handbook.example_atlas import schema_of_parts, write_atlas
from handbook.markdown import code, escaped, table
from pipeline.metrics import METRICS
from pipeline.results.atlas import ATLAS_VIEWS, RUNS_SCHEMA, open_atlas
from pipeline.results.views import RUN_COLUMNS
from schemas.explanation import ERROR_FIELDS, IDENTITY_FIELDS, MAP_FIELDS
from schemas.sanity import SANITY_SCHEMA

VIEWS = {
    "explanations": "One row for each image, target and method: the columns of the parts, without failures.",
    "images": "One row for each image. `correct` is null where the rows do not tell whether a prediction is right.",
    "failures": "One row for each image, method or place in a shard that failed.",
    "classes": "One row for each class: its index and its name, where names are known.",
    "leaderboard": "One row for each method and rule of targets, with the mean of each metric.",
    "sanity": "The results of `camatlas sanity`.",
    "runs": "One row for each run of an atlas.",
}
"""What a row of each view is."""
_GROUPS = {
    "The image and the class that is explained": IDENTITY_FIELDS,
    "The map": MAP_FIELDS,
    "What failed": ERROR_FIELDS,
}
_COLUMNS = "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"


@cache
def columns_of_views() -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Return the columns of every view with their types, as SQL sees them in an atlas with every metric."""
    with tempfile.TemporaryDirectory() as folder:
        write_atlas(Path(folder))
        with open_atlas(folder) as atlas:
            found = {view: atlas.arrow(_COLUMNS, [view]).to_pylist() for view in ATLAS_VIEWS}
    return {view: tuple((row["column_name"], row["data_type"]) for row in rows) for view, rows in found.items()}


def page() -> str:
    """Write the page."""
    parts = ["## Columns of a part\n"]
    parts += [f"### {title}\n\n{_fields(fields)}\n" for title, fields in _GROUPS.items()]
    metrics = [[f"[`{name}`](metrics.md#{name})", escaped(kind.unit)] for name, kind in METRICS.items()]
    parts.append(f"### One column for each metric of the run\n\n{table(['column', 'unit'], metrics)}\n")
    known = {*METRICS, *(field.name for fields in _GROUPS.values() for field in fields)}
    others = [field for field in schema_of_parts() if field.name not in known]
    parts.append(f"### Where the image lies, and what else is known of it\n\n{_fields(others)}\n\n## Views\n")
    parts.append(f"In an atlas, each view also has the columns {', '.join(map(code, RUN_COLUMNS))}.\n")
    return "\n".join([*parts, *map(_view, ATLAS_VIEWS)])


def _view(name: str) -> str:
    """Describe the columns of a view that are not those of the parts."""
    meanings = {field.name: field for schema in (SANITY_SCHEMA, RUNS_SCHEMA, schema_of_parts()) for field in schema}
    shown = [(column, kind) for column, kind in columns_of_views()[name] if column not in (*METRICS, *RUN_COLUMNS)]
    rows = [[code(column), code(kind), _meta(meanings.get(column))[1]] for column, kind in shown]
    return f"(view-{name})=\n### `{name}`\n\n{VIEWS[name]}\n\n{table(['column', 'type in SQL', 'meaning'], rows)}\n"


def _fields(fields: Iterable["pa.Field[pa.DataType]"]) -> str:
    rows = [[code(field.name), code(field.type), *_meta(field)] for field in fields]
    return table(["column", "type", "unit", "meaning"], rows)


def _meta(field: "pa.Field[pa.DataType] | None") -> list[str]:
    known = (field.metadata if field is not None else None) or {}
    return [escaped(known.get(name, b"").decode()) for name in (b"unit", b"meaning")]
