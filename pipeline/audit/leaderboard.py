"""How the methods of a run compare: means with intervals on the same images, and which differences are none."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.audit.statistics import Difference, differences, holm, resampled
from pipeline.audit.tables import asked
from pipeline.audit.values import Column, Values, metric_labels
from pipeline.cams import METHODS
from pipeline.metrics import METRICS
from pipeline.results.query import Run

APPROXIMATE = ("clusters", "channels")
"""Parameters of methods that save passes at a price."""

SANE_BELOW = 0.75
"""A method fails the sanity check when its maps of the random model have a larger rank correlation with the others."""

_SANITY = """
SELECT method, images, maps, spearman, spearman_half_width AS half_width, ssim FROM sanity
WHERE test = 'randomisation' QUALIFY step = max(step) OVER () ORDER BY method
"""


def leaderboard(run: Run, values: Values) -> dict[str, Any]:
    """Collect the section: rows of the view `leaderboard`, each metric with interval and ties with the best."""
    found = asked(run, "SELECT * FROM leaderboard")
    passed = sane(run)
    for row in found["rows"]:
        fields = run.manifest.identity.methods[row["method"]]
        kind = METHODS.get(str(fields["name"]))
        row["interpretation"] = kind is not None and kind.interpretation
        row["approximate"] = any(fields.get(name) is not None for name in APPROXIMATE)
        row["sane"] = passed.get(row["method"])
        row["intervals"] = {}
    bests = _bests(run, found["rows"])
    drawn = _Drawn(values, bests, run.manifest.identity.seed)
    for metric in metrics(run):
        for rule in sorted({row["target_rule"] for row in found["rows"]}):
            rows = [row for row in found["rows"] if row["target_rule"] == rule and row[metric] is not None]
            _compare(rows, metric, bests.get((rule, metric)), drawn)
    return found


OF_THE_MODEL = ("box_removed_confidence", "box_only_confidence")
"""Metrics that say something of the model and the image, the same for every method; they have their own section."""


def metrics(run: Run) -> dict[str, dict[str, Any]]:
    """Say what the run's metrics of methods are: unit, which direction is better, what they read."""
    kinds = {label: METRICS[run.manifest.identity.metrics[label]["name"]] for label in metric_labels(run)}
    return {
        label: {"name": kind.name, "unit": kind.unit, "better": kind.better, "reads": kind.reads}
        for label, kind in kinds.items()
        if kind.name not in OF_THE_MODEL
    }


def sane(run: Run) -> dict[str, bool]:
    """Say which methods change with the model (`camatlas sanity`); empty where that was not checked."""
    return {
        row["method"]: row["spearman"] is None or row["spearman"] - (row["half_width"] or 0) <= SANE_BELOW
        for row in asked(run, _SANITY)["rows"]
    }


def sanity(run: Run) -> dict[str, Any]:
    """Collect the last step of the randomisation check."""
    found = asked(run, _SANITY)
    passed = sane(run)
    for row in found["rows"]:
        row["passed"] = passed[row["method"]]
    return found


def _bests(run: Run, rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Name the best method of each target rule and metric that has a better direction."""
    found = {}
    for metric, about in metrics(run).items():
        pick = {"higher": max, "lower": min}.get(about["better"])
        for rule in {row["target_rule"] for row in rows}:
            known = [row for row in rows if row["target_rule"] == rule and row[metric] is not None]
            if pick and known:
                found[rule, metric] = str(pick(known, key=lambda row: row[metric])["method"])
    return found


class _Drawn:
    """Every column, and its difference from the best of its metric on the images of both, under one resampling."""

    def __init__(self, values: Values, bests: Mapping[tuple[str, str], str], seed: int) -> None:
        self.columns = values.columns
        self.known_K = np.count_nonzero(values.counts_IK, axis=0)
        found = [(values.sums_IK[:, index], values.counts_IK[:, index]) for index in range(len(values.columns))]
        self.against: dict[Column, int] = {}
        for (rule, method, metric), index in values.columns.items():
            best = bests.get((rule, metric))
            if best is not None and best != method:
                self.against[rule, method, metric] = len(found)
                found.append(differences(found[index], found[values.columns[rule, best, metric]]))
        empty = np.zeros((len(values), 0), np.float32)
        sums_IK, counts_IK = (np.stack([one[side] for one in found], axis=1) if found else empty for side in (0, 1))
        self.drawn = resampled(sums_IK, counts_IK, values.classes_I, seed)

    def images(self, column: Column) -> int:
        """Count the images that have a value: metrics of boxes read right answers alone."""
        return int(self.known_K[self.columns[column]])

    def interval(self, column: Column) -> tuple[float | None, float | None]:
        """Give the interval of a mean."""
        return self.drawn.interval(self.columns[column])

    def difference(self, column: Column) -> Difference:
        """Give the difference from the best."""
        return self.drawn.difference(self.against[column])


def _compare(rows: list[dict[str, Any]], metric: str, best: str | None, drawn: _Drawn) -> None:
    """Give each row its interval; mark the best, and what cannot be told from it."""
    found: dict[str, Difference] = {}
    for row in rows:
        column = (row["target_rule"], row["method"], metric)
        low, high = drawn.interval(column)
        row["intervals"][metric] = {"low": low, "high": high, "images": drawn.images(column)}
        row["intervals"][metric] |= {"best": row["method"] == best, "tied": False, "p": None}
        if best is not None and row["method"] != best:
            found[row["method"]] = drawn.difference(column)
    adjusted = dict(zip(found, holm([one.p if one.p is not None else 1.0 for one in found.values()]), strict=True))
    for row in rows:
        if row["method"] in found:
            row["intervals"][metric] |= {"tied": found[row["method"]].tied, "p": adjusted[row["method"]]}
