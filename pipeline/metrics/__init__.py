"""The metrics. This is their registry, written by hand: what stands here exists."""

from collections.abc import Iterable

import pyarrow as pa

from pipeline.metrics.base import Metric, Trial, Truth
from pipeline.metrics.faithfulness import AverageDrop, Increase
from pipeline.metrics.localisation import EnergyInBox, PointingGame
from pipeline.registry import Spec, build_all
from schemas.explanation import described

__all__ = ["METRICS", "Metric", "Trial", "Truth", "build_metrics", "metric_fields"]

METRICS: dict[str, type[Metric]] = {
    AverageDrop.name: AverageDrop,
    Increase.name: Increase,
    PointingGame.name: PointingGame,
    EnergyInBox.name: EnergyInBox,
}


def build_metrics(specs: Iterable[Spec]) -> dict[str, Metric]:
    """Build the metrics of a run, keyed by their name in it.

    Raises:
        ConfigError: every mistake in the list, at once.
    """
    return build_all(specs, METRICS, "explain.metrics")


def metric_fields(metrics: dict[str, Metric]) -> list["pa.Field[pa.DataType]"]:
    """Describe the columns that the metrics add to a part, by name: nullable float32, null where not applicable."""
    return [
        described(label, pa.float32(), metric.unit, f"{type(metric).name}, {metric.better} is better")
        for label, metric in sorted(metrics.items())
    ]
