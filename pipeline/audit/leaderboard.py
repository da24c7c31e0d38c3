"""Leaderboard: mean metrics of the methods of a run with intervals, ties with the best, and sanity results."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.audit.statistics import Difference, differences, holm, resampled
from pipeline.audit.tables import query_table
from pipeline.audit.values import Column, Values, metric_labels
from pipeline.cams import METHODS
from pipeline.metrics import METRICS
from pipeline.results.leaderboard import MODEL_METRICS
from pipeline.results.query import Run

APPROXIMATE = ("clusters", "channels")
"""Parameters of methods that trade exactness for fewer forward passes."""


def leaderboard(run: Run, values: Values, checked: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Compute the section: rows of the view `leaderboard`, with interval and ties with the best for each metric.

    Args:
        run: the run.
        values: its values.
        checked: the rows of `follows.sanity`.
    """
    table = query_table(run, "SELECT * FROM leaderboard")
    answers = {row["method"]: row for row in checked}
    for row in table["rows"]:
        fields = run.manifest.identity.methods[row["method"]]
        kind = METHODS.get(str(fields["name"]))
        row["interpretation"] = kind is not None and kind.interpretation
        row["approximate"] = any(fields.get(name) is not None for name in APPROXIMATE)
        known = answers.get(row["method"], {})
        row["follows"], row["pairs"] = known.get("follows"), known.get("maps")
        row["intervals"] = {}
    bests = _bests(run, table["rows"])
    drawn = _Drawn(values, bests, run.manifest.identity.seed)
    for metric in metrics(run):
        for rule in sorted({row["target_rule"] for row in table["rows"]}):
            rows = [row for row in table["rows"] if row["target_rule"] == rule and row[metric] is not None]
            _compare(rows, metric, bests.get((rule, metric)), drawn)
    return table


def metrics(run: Run) -> dict[str, dict[str, Any]]:
    """Describe the metrics that compare methods: unit, direction that is better, and input."""
    described = {label: _described(run.manifest.identity.metrics[label]) for label in metric_labels(run)}
    return {label: about for label, about in described.items() if about["name"] not in MODEL_METRICS}


def _described(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a metric: ours by its class, a plug-in, which need not be installed here, by what the manifest holds."""
    about: Any = fields.get("plugin")
    if about is not None:
        return {"name": fields["name"], **{name: about[name] for name in ("unit", "better", "reads")}}
    kind = METRICS[fields["name"]]
    return {"name": kind.name, "unit": kind.unit, "better": kind.better, "reads": kind.reads}


def _bests(run: Run, rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Find the best method for each target rule and each metric with a better direction."""
    bests = {}
    for metric, about in metrics(run).items():
        pick = {"higher": max, "lower": min}.get(about["better"])
        for rule in {row["target_rule"] for row in rows}:
            known = [row for row in rows if row["target_rule"] == rule and row[metric] is not None]
            if pick and known:
                bests[rule, metric] = str(pick(known, key=lambda row: row[metric])["method"])
    return bests


class _Drawn:
    """Bootstrap of every column, and of its paired difference from the best of its metric, on the same resamples."""

    def __init__(self, values: Values, bests: Mapping[tuple[str, str], str], seed: int) -> None:
        self.columns = values.columns
        self.scale = 1.0 if values.sample.is_whole else (values.sample.images / values.sample.of) ** 0.5
        self.known_K = np.count_nonzero(values.counts_IK, axis=0)
        columns = [(values.sums_IK[:, index], values.counts_IK[:, index]) for index in range(len(values.columns))]
        self.against: dict[Column, int] = {}
        for (rule, method, metric), index in values.columns.items():
            best = bests.get((rule, metric))
            if best is not None and best != method:
                self.against[rule, method, metric] = len(columns)
                columns.append(differences(columns[index], columns[values.columns[rule, best, metric]]))
        empty = np.zeros((len(values), 0), np.float32)
        sums_IK, counts_IK = (
            np.stack([column[side] for column in columns], axis=1) if columns else empty for side in (0, 1)
        )
        self.drawn = resampled(sums_IK, counts_IK, values.classes_I, seed)

    def images(self, column: Column) -> int:
        """Count the images with a value in a column; not every metric is defined for every image."""
        return int(self.known_K[self.columns[column]])

    def interval(self, column: Column, mean: float) -> tuple[float | None, float | None]:
        """Return the 95 % interval of the mean of a column over all images.

        From a sample of n of N images comes the spread of its mean, which is larger by sqrt(N / n) than that of the
        mean over all:   mean + (resampled means - mean of the sample) sqrt(n / N)
        """
        ends = self.drawn.interval(self.columns[column])
        if self.scale == 1:
            return ends
        own = float(self.drawn.mean_K[self.columns[column]])
        low, high = (None if end is None else mean + (end - own) * self.scale for end in ends)
        return low, high

    def difference(self, column: Column) -> Difference:
        """Return the difference of a column from the best of its metric."""
        return self.drawn.difference(self.against[column])


def _compare(rows: list[dict[str, Any]], metric: str, best: str | None, drawn: _Drawn) -> None:
    """Add intervals to the rows; mark the best method and its ties, with p adjusted by Holm."""
    against_best: dict[str, Difference] = {}
    for row in rows:
        column = (row["target_rule"], row["method"], metric)
        low, high = drawn.interval(column, row[metric])
        row["intervals"][metric] = {"low": low, "high": high, "images": drawn.images(column)}
        row["intervals"][metric] |= {"best": row["method"] == best, "tied": False, "p": None}
        if best is not None and row["method"] != best:
            against_best[row["method"]] = drawn.difference(column)
    p_values = [1.0 if difference.p is None else difference.p for difference in against_best.values()]
    adjusted = dict(zip(against_best, holm(p_values), strict=True))
    for row in rows:
        if row["method"] in against_best:
            row["intervals"][metric] |= {"tied": against_best[row["method"]].tied, "p": adjusted[row["method"]]}
