"""Class names in SQL: the view `classes`, and the columns `label_name`, `predicted_name` and `target_name`.

The names stand in the manifests. DuckDB looks them up by index in a list that it holds as a variable, so that no name
becomes part of a statement, and queries that use no name pay nothing for them (a join would slow all of them).

A class without a name is its index as text, and so is a label of a model with raw outputs, which is no class. NULL
stays NULL.
"""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from pipeline.results.output_kind import OutputKind
from schemas.explanation import NAME_COLUMNS, described
from schemas.manifest import RunManifest

CLASSES_SCHEMA = pa.schema(
    [
        described("class_index", pa.int32(), "class index", "index of the class", nullable=False),
        described("name", pa.string(), "", "name of the class", nullable=False),
    ]
)


def class_table(manifest: RunManifest) -> pa.Table:
    """Return the classes of a run with their names; no rows where the run knows no names."""
    names = [name.encode("utf-8", "backslashreplace").decode() for name in manifest.classes]
    return pa.table([pa.array(range(len(names)), pa.int32()), pa.array(names, pa.string())], schema=CLASSES_SCHEMA)


def name_statements(tables: Sequence[str]) -> list[str]:
    """Return the SQL that keeps the names of tables of classes in the variables that `name_columns` reads."""
    return [
        f"SET VARIABLE {_variable(place)} = (SELECT list(name ORDER BY class_index) FROM {table})"  # noqa: S608
        for place, table in enumerate(tables)
    ]


def name_columns(manifests: Sequence[RunManifest], taken: Iterable[str]) -> dict[str, str]:
    """Return the SQL of the columns of names; those of runs of an atlas are told apart by the column `run`.

    Args:
        manifests: of the runs, in the order of the tables of classes.
        taken: names of columns of the rows, which are left out here.
    """
    known = {name.lower() for name in taken}
    return {name: _of_runs(manifests, index) for name, index in NAME_COLUMNS.items() if name not in known}


def _of_runs(manifests: Sequence[RunManifest], index: str) -> str:
    by_run = {manifest.run_id: _named(manifest, place, index) for place, manifest in enumerate(manifests)}
    if len(by_run) == 1:
        return next(iter(by_run.values()))
    cases = " ".join(f"WHEN '{run_id}' THEN {sql}" for run_id, sql in by_run.items())
    return f"CASE run {cases} END"


def _named(manifest: RunManifest, place: int, index: str) -> str:
    """Return the SQL of a class name by its index; a list of DuckDB counts from 1, and from its end below 0."""
    number = f"{index}::VARCHAR"
    if not manifest.classes or (index == "label" and not OutputKind.of(manifest).has_confidences):
        return number
    return f"coalesce(CASE WHEN {index} >= 0 THEN getvariable('{_variable(place)}')[{index} + 1] END, {number})"


def _variable(place: int) -> str:
    return f"class_names_{place}"
