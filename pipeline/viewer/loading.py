"""Reads the rows of a run without their maps, and says where in the files each row lies.

Legend: N rows of a batch.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.viewer.columns import narrow
from schemas.manifest import RunManifest

_FRAGMENT = "__fragment_index"
ONE_TARGET = ("predicted", "label")
"""Rules that choose one class of each image."""


def read_rows(run: Run) -> pa.RecordBatchReader:
    """Read the narrow columns batch by batch, with the number, the file and the place in it of each row.

    Raises, while it is read:
        DamagedRunError: a part is damaged.
    """
    dataset = run.dataset()
    scanner = dataset.scanner(columns=[*narrow(dataset.schema), _FRAGMENT], fragment_readahead=8)
    fields = [dataset.schema.field(name) for name in narrow(dataset.schema)]
    return pa.RecordBatchReader.from_batches(pa.schema([*fields, *PLACES]), _placed(scanner.to_batches()))


PLACES = (
    pa.field("viewer_id", pa.int32()), pa.field("viewer_file", pa.int32()), pa.field("viewer_place", pa.int32())
)  # fmt: skip


def _placed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Add the number, the file and the place of each row to batches, which come file by file."""
    known, file, place = 0, -1, 0
    for batch in batches:
        if not batch.num_rows:
            continue
        files_N = batch[_FRAGMENT].to_numpy()
        if files_N[0] < file or (np.diff(files_N) < 0).any():
            raise AssertionError("pyarrow read the files in another order")
        starts_N = np.arange(batch.num_rows) - np.searchsorted(files_N, files_N)
        places_N = starts_N + np.where(files_N == file, place, 0)
        numbers_N = np.arange(known, known + batch.num_rows)
        added = [pa.array(values_N.astype(np.int32)) for values_N in (numbers_N, files_N, places_N)]
        schema = pa.schema([*(field for field in batch.schema if field.name != _FRAGMENT), *PLACES])
        yield pa.RecordBatch.from_arrays([*batch.columns[:-1], *added], schema=schema)
        known, file, place = known + batch.num_rows, int(files_N[-1]), int(places_N[-1]) + 1


def refined_rows(table: str, manifest: RunManifest) -> str:
    """Return the SQL that adds whether each prediction is right, and which row is of its image's first target."""
    kind = OutputKind.of(manifest)
    first = "TRUE" if manifest.identity.targets in ONE_TARGET else f"{_RANK} = 1"
    if not kind.is_independent:
        correct = kind.correct_sql().removeprefix("any_value")
        return f"SELECT *, {correct} AS viewer_correct, {first} AS viewer_first FROM {table}"  # noqa: S608
    judged = f"SELECT shard, image_key, {kind.correct_sql()} AS viewer_correct FROM {table} GROUP BY shard, image_key"  # noqa: S608
    return (
        f"SELECT {table}.*, judged.viewer_correct, {first} AS viewer_first "  # noqa: S608
        f"FROM {table} JOIN ({judged}) AS judged USING (shard, image_key) ORDER BY viewer_id"
    )


_RANK = "row_number() OVER (PARTITION BY shard, image_key, method ORDER BY target_confidence DESC NULLS LAST, target)"


def named_view(ordinal: int) -> str:
    """Return the SQL of the view that conditions are written for: the table, with the names of classes."""
    joins = " ".join(
        f"LEFT JOIN classes_{ordinal} AS {column}_classes ON {column}_classes.number = rows.{column}"
        for column in ("label", "predicted", "target")
    )
    names = ", ".join(f"{column}_classes.name AS {name}" for column, name in NAMED.items())
    columns = f"rows.*, rows.viewer_correct AS correct, {names}"
    return f"CREATE VIEW explanations_{ordinal} AS SELECT {columns} FROM rows_{ordinal} AS rows {joins}"  # noqa: S608


NAMED = {"label": "label_name", "predicted": "predicted_name", "target": "target_name"}


def clean(text: str) -> str:
    """Replace lone surrogates, which Arrow does not hold."""
    return text.encode("utf-8", "backslashreplace").decode()
