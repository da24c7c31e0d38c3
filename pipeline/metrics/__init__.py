"""Registry of the metrics, written by hand: a metric exists for users once it is listed here."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from pipeline.errors import ConfigError, Mistake
from pipeline.metrics.base import Metric, Redrawn
from pipeline.metrics.boxes import BoxIou, BoxIouCurve, BoxOnlyConfidence, BoxRemovedConfidence
from pipeline.metrics.combined import Adcc, Arcc, Coherency, Complexity
from pipeline.metrics.curves import Deletion, DeletionCurve, Insertion, InsertionCurve
from pipeline.metrics.faithfulness import AverageDrop, AverageGain, Increase
from pipeline.metrics.heatmap_batch import Parts, Truth
from pipeline.metrics.localisation import EnergyInBox, MiouTop20, PointingGame, TopNInBox
from pipeline.metrics.occlusion import OcclusionAgreement
from pipeline.metrics.parts import PartMass, PartRank, PartSign
from pipeline.metrics.plugged import METRIC_PLUGINS, BaseMetric, PluggedMetric
from pipeline.metrics.road import Road, RoadLerf, RoadMorf
from pipeline.metrics.robustness import Infidelity, MaxSensitivity
from pipeline.metrics.scoring import Redraw, ScoringBatch
from pipeline.metrics.shape import EnergyOutsideCentre, Entropy, Sparsity, TotalVariation
from pipeline.metrics.views import View
from pipeline.settings.registry import Spec, build_all
from schemas.explanation import NAME_COLUMNS, described, explanation_schema, is_curve

__all__ = [
    "METRICS", "METRIC_PLUGINS", "BaseMetric", "Metric", "Parts", "Redraw", "Redrawn", "ScoringBatch", "Truth", "View",
    "build_metrics", "metric_fields", "reads_boxes", "reads_parts",
]  # fmt: skip

METRICS: dict[str, type[Metric]] = {
    AverageDrop.name: AverageDrop,
    Increase.name: Increase,
    AverageGain.name: AverageGain,
    Insertion.name: Insertion,
    InsertionCurve.name: InsertionCurve,
    Deletion.name: Deletion,
    DeletionCurve.name: DeletionCurve,
    Road.name: Road,
    RoadMorf.name: RoadMorf,
    RoadLerf.name: RoadLerf,
    Infidelity.name: Infidelity,
    OcclusionAgreement.name: OcclusionAgreement,
    Coherency.name: Coherency,
    Complexity.name: Complexity,
    Adcc.name: Adcc,
    Arcc.name: Arcc,
    PointingGame.name: PointingGame,
    EnergyInBox.name: EnergyInBox,
    TopNInBox.name: TopNInBox,
    MiouTop20.name: MiouTop20,
    BoxIou.name: BoxIou,
    BoxIouCurve.name: BoxIouCurve,
    BoxRemovedConfidence.name: BoxRemovedConfidence,
    BoxOnlyConfidence.name: BoxOnlyConfidence,
    PartMass.name: PartMass,
    PartRank.name: PartRank,
    PartSign.name: PartSign,
    Sparsity.name: Sparsity,
    Entropy.name: Entropy,
    EnergyOutsideCentre.name: EnergyOutsideCentre,
    TotalVariation.name: TotalVariation,
    MaxSensitivity.name: MaxSensitivity,
}

_OF_BOXES = (
    PointingGame, EnergyInBox, TopNInBox, MiouTop20, BoxIou, BoxIouCurve, BoxRemovedConfidence, BoxOnlyConfidence,
)  # fmt: skip
"""Metrics that apply only to images with boxes."""

_OF_PARTS = (PartMass, PartRank, PartSign)
"""Metrics that apply only to images with the values of their parts."""

_OF_VIEWS = ("images", *NAME_COLUMNS)
"""Columns of SQL views that are not columns of the rows."""

_RENAME = "give it another name with {as: ...}"


def build_metrics(specs: Iterable[Spec]) -> dict[str, Metric]:
    """Build the metrics of a run, keyed by their name in the run.

    Raises:
        ConfigError: the list has mistakes, all of which are reported at once; a name is already a column of the rows or
            of an SQL view, ignoring case as SQL does; or a name ends in `_curve` although the metric is a number,
            or does not although it is a curve.
    """
    metrics = build_all(specs, METRICS, "explain.metrics", METRIC_PLUGINS)
    columns = Counter(name.lower() for name in (*explanation_schema(has_metadata=True).names, *_OF_VIEWS, *metrics))
    clashing = [label for label in metrics if columns[label.lower()] > 1]
    if clashing:
        raise ConfigError(
            Mistake("explain.metrics", f"'{label}' is the name of another column", _RENAME) for label in clashing
        )
    for label, metric in metrics.items():
        if metric.curve != is_curve(label):
            raise ConfigError.one(
                "explain.metrics",
                f"'{label}': a name must end in _curve if the metric is a curve, and only then",
                _RENAME,
            )
    return metrics


def reads_boxes(metric: Metric) -> bool:
    """Tell whether a metric applies only to images with boxes."""
    return metric.truth == "boxes" if isinstance(metric, PluggedMetric) else isinstance(metric, _OF_BOXES)


def reads_parts(metric: Metric) -> bool:
    """Tell whether a metric applies only to images with the values of their parts."""
    return metric.truth == "parts" if isinstance(metric, PluggedMetric) else isinstance(metric, _OF_PARTS)


def metric_fields(metrics: dict[str, Metric]) -> list["pa.Field[pa.DataType]"]:
    """Return the columns that the metrics add to a part, by name.

    Nullable float32, or a list of float32 for a curve; null where the metric does not apply.
    """
    return [
        described(
            label,
            pa.list_(pa.float32()) if metric.curve else pa.float32(),
            metric.unit,
            f"{metric.name}, {'neither direction' if metric.better == 'neither' else metric.better} is better",
        )
        for label, metric in sorted(metrics.items())
    ]
