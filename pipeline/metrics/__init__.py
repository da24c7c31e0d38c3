"""The metrics. This is their registry, written by hand: what stands here exists."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from pipeline.errors import ConfigError, Mistake
from pipeline.metrics.base import Metric, Trial, Truth
from pipeline.metrics.faithfulness import AverageDrop, Increase
from pipeline.metrics.localisation import EnergyInBox, PointingGame
from pipeline.registry import Spec, build_all
from schemas.explanation import described, explanation_schema

__all__ = ["METRICS", "Metric", "Trial", "Truth", "build_metrics", "metric_fields"]

METRICS: dict[str, type[Metric]] = {
    AverageDrop.name: AverageDrop,
    Increase.name: Increase,
    PointingGame.name: PointingGame,
    EnergyInBox.name: EnergyInBox,
}

_LEADERBOARD = ("images",)
"""Columns of the leaderboard that no row has."""

_AS = "give it another name: {as: ...}"


def build_metrics(specs: Iterable[Spec]) -> dict[str, Metric]:
    """Build the metrics of a run, keyed by their name in it.

    Raises:
        ConfigError: every mistake in the list, at once; and names that another column of the rows or of the
            leaderboard has. SQL does not tell upper and lower case apart, so neither does this check.
    """
    metrics = build_all(specs, METRICS, "explain.metrics")
    columns = Counter(name.lower() for name in (*explanation_schema().names, *_LEADERBOARD, *metrics))
    clashing = [label for label in metrics if columns[label.lower()] > 1]
    if clashing:
        raise ConfigError(
            Mistake("explain.metrics", f"'{label}' is the name of another column", _AS) for label in clashing
        )
    return metrics


def metric_fields(metrics: dict[str, Metric]) -> list["pa.Field[pa.DataType]"]:
    """Describe the columns that the metrics add to a part, by name: nullable float32, null where not applicable."""
    return [
        described(label, pa.float32(), metric.unit, f"{type(metric).name}, {metric.better} is better")
        for label, metric in sorted(metrics.items())
    ]
