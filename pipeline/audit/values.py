"""The values of the sample of a run, one row per image: the input of the statistics and detectors.

Legend: I images of the sample, K columns (target rule, method, metric).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.audit.sample import Sample, draw
from pipeline.audit.statistics import Indices, Numbers
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.sql_engine import quoted
from schemas.explanation import is_curve

Place = tuple[str, str]
"""Shard and image key."""

Column = tuple[str, str, str]
"""Target rule, method and metric."""

Flags = npt.NDArray[np.bool_]

HELD_OUT = "left(md5(concat_ws(chr(31), shard, image_key)), 1) < '8'"
"""SQL that tells whether an image is in the held-out half."""

_IMAGES = f"""
SELECT shard, image_key, label, predicted, confidence, correct, {{group}} AS class,
  image_height, image_width, {HELD_OUT} AS held_out
FROM images WHERE maps > 0 AND {{drawn}} ORDER BY shard, image_key
"""  # noqa: S608 - constants only
_SUMS = """
SELECT drawn.row, method, target_rule, sum({metric}) AS total, count({metric}) AS known
FROM explanations JOIN drawn USING (shard, image_key)
WHERE {metric} IS NOT NULL AND NOT isnan({metric}) GROUP BY ALL
"""
_AMONG_WANTED = "(shard, image_key) IN (SELECT (shard, image_key) FROM wanted)"
_PLACES = pa.schema([pa.field("shard", pa.string()), pa.field("image_key", pa.string())])


@dataclass(frozen=True)
class Values:
    """Images of a run that have a map: all of them, or a sample.

    Attributes:
        places: shard and image key of each image, sorted.
        labels_I, predicted_I, classes_I: class indices, -1 for none; `classes_I` is the label if there is one, else the
            predicted class. With independent labels it is the predicted class, and with raw outputs there is none.
        confidences_I: confidence of the predicted class; NaN for raw outputs.
        correct_I: 1 correct, 0 wrong, NaN where the rows do not tell.
        held_out_I: whether an image is in the half, by a hash of shard and key, on which effects are measured.
        sizes_I2: height and width of the upright image, in pixels.
        columns: index of each column in `sums_IK` and `counts_IK`.
        sums_IK, counts_IK: sum and number of the values of each image.
        sample: how the images were drawn.
    """

    places: list[Place]
    labels_I: Indices
    predicted_I: Indices
    classes_I: Indices
    confidences_I: Numbers
    correct_I: Numbers
    held_out_I: Flags
    sizes_I2: Numbers
    columns: Mapping[Column, int]
    sums_IK: npt.NDArray[np.float32]
    counts_IK: npt.NDArray[np.float32]
    sample: Sample = field(default_factory=Sample)

    def __len__(self) -> int:
        return len(self.places)

    def metric(self, metric: str, method: str | None = None) -> Numbers:
        """Return the mean of a metric for each image over its targets and over all methods, or one method, (I,)."""
        chosen = [k for (_, own, name), k in self.columns.items() if name == metric and method in (None, own)]
        counts_I = self.counts_IK[:, chosen].sum(1)
        means_I: Numbers = np.where(
            counts_I > 0, self.sums_IK[:, chosen].sum(1) / np.where(counts_I > 0, counts_I, 1), np.nan
        )
        return means_I


def load_values(run: Run, sample: Sample | None = None) -> Values:
    """Read the values of the images of a sample, by default the one that `draw` draws."""
    sample = draw(run) if sample is None else sample
    query = _IMAGES.format(group=group_sql(OutputKind.of(run.manifest)), drawn=sample.condition)
    return _values(run, run.arrow(query), sample)


def values_at(run: Run, places: Sequence[Place]) -> Values:
    """Read the values of given images; those without a map are left out."""
    wanted = pa.table({"shard": [shard for shard, _ in places], "image_key": [key for _, key in places]}, _PLACES)
    query = _IMAGES.format(group=group_sql(OutputKind.of(run.manifest)), drawn=_AMONG_WANTED)
    with run.with_table("wanted", wanted):
        table = run.arrow(query)
    return _values(run, table, Sample(table.num_rows, table.num_rows))


def _values(run: Run, table: pa.Table, sample: Sample) -> Values:
    places = list(zip(table["shard"].to_pylist(), table["image_key"].to_pylist(), strict=True))
    columns, sums_IK, counts_IK = _columns(run, places)
    return Values(
        places=places,
        labels_I=_integers(table["label"]),
        predicted_I=_integers(table["predicted"]),
        classes_I=_integers(table["class"]),
        confidences_I=_numbers(table["confidence"]),
        correct_I=_numbers(table["correct"].cast("int8")),
        held_out_I=np.array(table["held_out"].to_pylist(), bool),
        sizes_I2=np.stack([_numbers(table["image_height"]), _numbers(table["image_width"])], axis=1),
        columns=columns,
        sums_IK=sums_IK,
        counts_IK=counts_IK,
        sample=sample,
    )


def numbered(places: Sequence[Place]) -> pa.Table:
    """Return the images as a table with their row, to be read by queries as `drawn`."""
    shards, keys = [shard for shard, _ in places], [key for _, key in places]
    return pa.table([shards, keys, np.arange(len(places))], _PLACES.append(pa.field("row", pa.int64())))


def group_sql(kind: OutputKind) -> str:
    """Return the SQL of the class by which images are grouped; NULL for raw outputs."""
    if not kind.has_confidences:
        return "NULL::INTEGER"
    return "predicted" if kind.is_independent else "coalesce(label, predicted)"


def metric_labels(run: Run) -> list[str]:
    """List the metrics of a run, without curves."""
    return [name for name in run.manifest.identity.metrics if not is_curve(name)]


def metric_label(run: Run, kind: str) -> str | None:
    """Return the column name of the first metric of a kind; None when the run has none."""
    metrics = run.manifest.identity.metrics.items()
    return next((label for label, fields in metrics if fields["name"] == kind), None)


def _columns(
    run: Run, places: Sequence[Place]
) -> tuple[dict[Column, int], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    columns: dict[Column, int] = {}
    pairs: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = []
    with run.with_table("drawn", numbered(places)):
        for metric in metric_labels(run):
            frame = run.sql(_SUMS.format(metric=quoted(metric)))
            for (rule, method), own in sorted(frame.groupby(["target_rule", "method"]), key=lambda pair: pair[0]):
                columns[str(rule), str(method), metric] = len(pairs)
                pair = (np.zeros(len(places), np.float32), np.zeros(len(places), np.float32))
                for target_I, name in zip(pair, ("total", "known"), strict=True):
                    target_I[own["row"]] = own[name]
                pairs.append(pair)
    empty = np.zeros((len(places), 0), np.float32)
    sums_IK = np.stack([sums for sums, _ in pairs], axis=1) if pairs else empty
    counts_IK = np.stack([counts for _, counts in pairs], axis=1) if pairs else empty
    return columns, sums_IK, counts_IK


def _integers(column: Any) -> Indices:  # noqa: ANN401 - pyarrow has no types
    return np.asarray(column.fill_null(-1).to_numpy(), np.int64)


def _numbers(column: Any) -> Numbers:  # noqa: ANN401 - pyarrow has no types
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
