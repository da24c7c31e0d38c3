"""The table of classes: how well each is told, where its maps lie, and how far the methods agree on it."""

from typing import Any

import numpy as np

from pipeline.audit.maps import Maps
from pipeline.audit.statistics import RARE, Numbers, wilson
from pipeline.audit.tables import asked, class_name
from pipeline.audit.values import Values, metric_labels
from pipeline.maps.codec import FloatArray
from pipeline.results.query import Run

MOST_CLASSES = 50

_CLASSES = """
SELECT coalesce(label, predicted) AS class, count(*) AS images, avg(correct::INT) AS accuracy,
  avg(confidence) AS mean_confidence
FROM images WHERE maps > 0 GROUP BY class ORDER BY images DESC, class
"""


def classes(run: Run, values: Values, maps: Maps) -> dict[str, Any]:
    """Collect the section: every class with its numbers; mean maps of the largest ones alone."""
    table = asked(run, _CLASSES)
    shown = {row["class"] for row in table["rows"][:MOST_CLASSES]}
    kept_I = np.where(np.isin(values.classes_I, list(shown)), values.classes_I, -1)
    means = {method: maps.means(method, kept_I) for method in run.manifest.identity.methods}
    grouped = _Grouped(values)
    agreement = grouped.means(maps.agreement())
    metrics = {
        method: {name: grouped.means(values.metric(name, method)) for name in metric_labels(run)} for method in means
    }
    for row in table["rows"]:
        index, accuracy = row["class"], row["accuracy"]
        row |= {"name": class_name(run, index), "rare": row["images"] < RARE, "agreement": agreement[index]}
        row["low"], row["high"] = wilson(
            round((accuracy or 0) * row["images"]), 0 if accuracy is None else row["images"]
        )
        row["metrics"] = {
            method: {name: own[index] for name, own in found.items()} for method, found in metrics.items()
        }
        row["mean_maps"] = {method: _listed(own[index]) for method, own in means.items() if index in own}
    return table


class _Grouped:
    """Means by class."""

    def __init__(self, values: Values) -> None:
        self.classes, self.codes_I = np.unique(values.classes_I, return_inverse=True)

    def means(self, values_I: Numbers) -> dict[int, float | None]:
        """Give the mean of the known values of each class."""
        known_I = np.isfinite(values_I)
        counts = np.bincount(self.codes_I[known_I], minlength=len(self.classes))
        sums = np.bincount(self.codes_I[known_I], weights=values_I[known_I], minlength=len(self.classes))
        found = zip(self.classes, sums, counts, strict=True)
        return {int(index): float(total / count) if count else None for index, total, count in found}


def _listed(map_uv: FloatArray) -> list[list[float]]:
    return [[round(float(value), 3) for value in row] for row in map_uv]
