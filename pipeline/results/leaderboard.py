"""The leaderboard as people read it: an arrow for the direction of each metric; what judges the model stands apart."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from pipeline.results.reliability import shipped_record
from pipeline.results.views import RUN_COLUMNS

Metrics = Mapping[str, Mapping[str, Any]]
"""The parameters of each metric, with its name in the registry, by its name in the run."""

MODEL_METRICS = ("box_removed_confidence", "box_only_confidence")
"""Metrics that read no map: they say how the model depends on the boxes, and are the same for every method."""

_ARROWS = {"higher": " ↑", "lower": " ↓"}
_RULES_APART = (
    "Rows of different target rules are of different images and must not be compared: a label that is also the "
    "predicted class has rows under one of the rules only."
)
_GROUP = (*RUN_COLUMNS, "target_rule")


def direction(fields: Mapping[str, Any]) -> str:
    """Return which direction of a metric is better: higher, lower, or neither, also where it is not known."""
    plugin = fields.get("plugin")
    if plugin is not None:
        return str(plugin["better"])
    judged = shipped_record().metrics.get(str(fields["name"]))
    return "neither" if judged is None else judged.better


def note_of_rules(rules: Iterable[str]) -> str:
    """Say that rows of several target rules must not be compared; empty if there is one rule only."""
    return _RULES_APART if len(set(rules)) > 1 else ""


def of_maps(table: pa.Table, metrics: Metrics) -> pa.Table:
    """Return the leaderboard without the metrics of the model; names of metrics end with an arrow, up for higher."""
    kept = [name for name in table.column_names if not _is_of_model(metrics, name)]
    arrows = {label: _ARROWS.get(direction(fields), "") for label, fields in metrics.items()}
    return table.select(kept).rename_columns([name + arrows.get(name, "") for name in kept])


def of_model(table: pa.Table, metrics: Metrics) -> pa.Table | None:
    """Return the metrics of the model, one row per target rule (and run); None if there are none.

    Methods that failed on an image lack its value, so each row is that of the method with the most images.
    """
    labels = [name for name in table.column_names if _is_of_model(metrics, name)]
    if not labels:
        return None
    group = [name for name in _GROUP if name in table.column_names]
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for row in table.sort_by([("images", "descending")]).to_pylist():
        rows.setdefault(tuple(row[name] for name in group), row)
    schema = pa.schema([table.schema.field(name) for name in (*group, "images", *labels)])
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows.values()], schema=schema)


def _is_of_model(metrics: Metrics, label: str) -> bool:
    return label in metrics and metrics[label]["name"] in MODEL_METRICS
