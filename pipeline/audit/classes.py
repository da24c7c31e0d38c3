"""Classes section: accuracy, metrics, mean maps and agreement between the methods for each class."""

from typing import Any

import numpy as np

from pipeline.audit.maps import Maps
from pipeline.audit.statistics import RARE, Numbers, wilson
from pipeline.audit.tables import class_name, query_table
from pipeline.audit.values import Values, group_sql, metric_labels
from pipeline.maps.codec import FloatArray
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run

MAX_CLASSES = 50

_CLASSES = """
SELECT {group} AS class, count(*) AS images, count(correct) AS judged, avg(correct::INT) AS accuracy,
  avg(confidence) AS mean_confidence
FROM images WHERE maps > 0{known} GROUP BY class ORDER BY images DESC, class
"""


def classes(run: Run, values: Values, maps: Maps) -> dict[str, Any]:
    """Compute the numbers of every class, and mean maps for the MAX_CLASSES largest classes.

    Metrics, agreement and mean maps rest on the sample; a class none of whose images is drawn has none.
    """
    kind = OutputKind.of(run.manifest)
    known = "" if kind.has_confidences else " AND FALSE"
    table = query_table(run, _CLASSES.format(group=group_sql(kind), known=known))
    shown = {row["class"] for row in table["rows"][:MAX_CLASSES]}
    kept_I = np.where(np.isin(values.classes_I, list(shown)), values.classes_I, -1)
    means = {method: maps.means(method, kept_I) for method in run.manifest.identity.methods}
    grouped = _Grouped(values)
    agreement, drawn = grouped.means(maps.agreement()), grouped.counts(values.confidences_I)
    metrics = {
        method: {name: grouped.means(values.metric(name, method)) for name in metric_labels(run)} for method in means
    }
    for row in table["rows"]:
        index, accuracy = row["class"], row["accuracy"]
        row |= {"name": class_name(run, index), "rare": row["images"] < RARE, "agreement": agreement.get(index)}
        row["low"], row["high"] = wilson(round((accuracy or 0) * row["judged"]), row["judged"])
        if not values.sample.is_whole:
            row["drawn"] = drawn.get(index, 0)
        row["metrics"] = {
            method: {name: means_of.get(index) for name, means_of in by_metric.items()}
            for method, by_metric in metrics.items()
        }
        row["mean_maps"] = {method: _listed(maps_of[index]) for method, maps_of in means.items() if index in maps_of}
    return table


class _Grouped:
    """Computes counts and means over the images of each class."""

    def __init__(self, values: Values) -> None:
        self.classes, self.codes_I = np.unique(values.classes_I, return_inverse=True)

    def counts(self, values_I: Numbers) -> dict[int, int]:
        """Return the number of finite values of each class."""
        counts = np.bincount(self.codes_I[np.isfinite(values_I)], minlength=len(self.classes))
        return dict(zip(map(int, self.classes), map(int, counts), strict=True))

    def means(self, values_I: Numbers) -> dict[int, float | None]:
        """Return the mean of each class over its finite values; None for a class without any."""
        known_I = np.isfinite(values_I)
        counts = np.bincount(self.codes_I[known_I], minlength=len(self.classes))
        sums = np.bincount(self.codes_I[known_I], weights=values_I[known_I], minlength=len(self.classes))
        totals = zip(self.classes, sums, counts, strict=True)
        return {int(index): float(total / count) if count else None for index, total, count in totals}


def _listed(map_uv: FloatArray) -> list[list[float]]:
    return [[round(float(value), 3) for value in row] for row in map_uv]
