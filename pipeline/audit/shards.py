"""Shards that stand out: labels that the model contradicts there and not elsewhere, and images that failed there."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.audit.findings import ENOUGH, Effect, Finding, percent
from pipeline.audit.statistics import Numbers, holm, wilson
from pipeline.audit.tables import asked
from pipeline.audit.values import Flags, Values
from pipeline.results.query import Run

LEAST_EXCESS = 0.15
"""A shard must have so many more errors than its classes have elsewhere."""

LEAST_FAILURES = 0.05
"""A shard must lose so many of its images, more than others, before it is a finding."""

SHARDS = """
SELECT shard, count(*) AS images, count(*) FILTER (maps = 0) AS failed, avg(correct::INT) AS accuracy,
  avg(confidence) AS mean_confidence FROM images GROUP BY shard ORDER BY failed DESC, accuracy, shard
"""
_DAMAGE = """
SELECT shard, count(*) AS damages, min(error_detail) AS detail FROM failures WHERE error_stage = 'shard'
GROUP BY shard ORDER BY shard
"""


def shards(run: Run, values: Values) -> tuple[dict[str, Any], list[Finding]]:
    """Collect the section (the worst shards), and findings about labels and about lost images."""
    table, damage = asked(run, SHARDS), asked(run, _DAMAGE)
    findings = [*_labels(values), *_failures(table["rows"], damage["rows"])]
    return {"worst": {**table, "rows": table["rows"][:20]}, "damage": damage, "count": len(table["rows"])}, findings


@dataclass(frozen=True)
class _Excess:
    """Errors of one shard beside what its classes have elsewhere."""

    shard: str
    errors: float
    elsewhere: float
    p: float
    images: int


def _labels(values: Values) -> list[Finding]:
    """Shards whose labels the model contradicts far more than those of the same classes elsewhere, on both halves."""
    first, second = (_excesses(values, half) for half in (False, True))
    found = []
    for shard in sorted(set(first) & set(second)):
        both = (first[shard], second[shard])
        if all(one.p < 0.01 and one.errors - one.elsewhere >= LEAST_EXCESS for one in both):
            found.append(_label_finding(values, second[shard]))
    return found


def _excesses(values: Values, half: bool) -> dict[str, _Excess]:
    """Test every shard on one half of the images; p is adjusted for the number of shards."""
    rows = np.flatnonzero(np.isfinite(values.correct_I) & (values.held_out_I == half))
    shards_N = np.array([values.places[row][0] for row in rows], dtype=object)
    wrong_N, classes_N = 1 - values.correct_I[rows], values.labels_I[rows]
    found = []
    for shard in sorted(set(shards_N)):
        inside_N = shards_N == shard
        expected_n, known_n = _expected(wrong_N, classes_N, inside_N)
        observed_n = wrong_N[inside_N][known_n]
        if len(observed_n) >= ENOUGH:
            p = _excess_p(observed_n, expected_n[known_n])
            expected = float(expected_n[known_n].mean())
            found.append(_Excess(shard, float(observed_n.mean()), expected, p, len(observed_n)))
    adjusted = holm([one.p for one in found])
    return {one.shard: replace(one, p=p) for one, p in zip(found, adjusted, strict=True)}


def _expected(wrong_N: Numbers, classes_N: Any, inside_N: Flags) -> tuple[Numbers, Flags]:  # noqa: ANN401
    """Give the share of errors of each image's class in the other shards; classes that are nowhere else are unknown."""
    size = int(classes_N.max()) + 1
    outside = np.bincount(classes_N[~inside_N], minlength=size)
    wrong = np.bincount(classes_N[~inside_N], weights=wrong_N[~inside_N], minlength=size)
    own_n = classes_N[inside_N]
    expected_n: Numbers = (wrong[own_n] + 0.5) / (outside[own_n] + 1)
    return expected_n, outside[own_n] > 0


def _excess_p(observed_n: Numbers, expected_n: Numbers) -> float:
    """One-sided p of the number of errors, each image having its own chance (normal approximation)."""
    from scipy.stats import norm  # costs time to import

    spread = float(np.sqrt((expected_n * (1 - expected_n)).sum()))
    return float(norm.sf((observed_n.sum() - 0.5 - expected_n.sum()) / spread)) if spread else 1.0


def _label_finding(values: Values, excess: _Excess) -> Finding:
    low, high = wilson(round(excess.errors * excess.images), excess.images)
    mine_I = np.array([shard == excess.shard for shard, _ in values.places])
    sure = values.confidences_I[mine_I & (values.correct_I == 0)].mean() >= values.confidences_I.mean() - 0.1
    why = (
        "and is as sure of its answers there as elsewhere, so the labels are suspect"
        if sure
        else "and is less sure of its answers there, so the images may differ too"
    )
    return Finding(
        "shard_labels", excess.shard, excess.shard, "shards", "replicated",
        f"The model contradicts {percent(excess.errors)} of the labels of shard {excess.shard} "
        f"({percent(excess.elsewhere)} for the same classes elsewhere), {why}.",
        Effect("labels contradicted", excess.errors, low or 0.0, high or 0.0, excess.images),
        "Each half of the shard's images shows it after Holm's correction for the number of shards; the figure is that "
        "of the held-out half.",
        "Look at the gallery 'Label suspects', and compare this shard's labels with their source.",
    )  # fmt: skip


def _failures(rows: list[dict[str, Any]], damage: list[dict[str, Any]]) -> list[Finding]:
    """One finding about the shard that lost most, when it lost more than chance; damage to its file counts too."""
    from scipy.stats import fisher_exact  # costs time to import

    damaged = dict.fromkeys(row["shard"] for row in damage)
    images, failed = sum(row["images"] for row in rows), sum(row["failed"] for row in rows)
    ps = holm([
        float(fisher_exact([[row["failed"], row["images"] - row["failed"]],
                            [failed - row["failed"], images - row["images"] - failed + row["failed"]]],
                           alternative="greater").pvalue)
        for row in rows
    ])  # fmt: skip
    elsewhere = {row["shard"]: (failed - row["failed"]) / max(1, images - row["images"]) for row in rows}
    bad = [
        row
        for row, p in zip(rows, ps, strict=True)
        if row["shard"] in damaged
        or (p < 0.01 and row["failed"] / row["images"] - elsewhere[row["shard"]] >= LEAST_FAILURES)
    ]
    there = {row["shard"] for row in rows}
    bad += [{"shard": shard, "images": 0, "failed": 0} for shard in damaged if shard not in there]
    if not bad:
        return []
    worst = max(bad, key=lambda row: (row["failed"] / max(1, row["images"]), row["shard"] in damaged, row["shard"]))
    return [_failure_finding(worst, worst["shard"] in damaged, len(bad) - 1)]


def _failure_finding(worst: dict[str, Any], damaged: bool, others: int) -> Finding:
    share = worst["failed"] / max(1, worst["images"])
    low, high = wilson(worst["failed"], worst["images"])
    lost = f"{worst['failed']} of {worst['images']} images of shard {worst['shard']} could not be explained"
    torn = "; its file is damaged, so that images after the damage are missing" if damaged else ""
    also = f". {others} more shards stand out." if others else "."
    return Finding(
        "shard_failures", worst["shard"], worst["shard"], "failures", "recorded", f"{lost}{torn}{also}",
        Effect("images lost", share, low or 0.0, high or 0.0, worst["images"]),
        "Counted in the run's failure rows; Fisher's exact test against the other shards, Holm's correction.",
        "Fetch the shard again and explain it in another folder; `camatlas query` lists the rows of `failures`.",
    )  # fmt: skip
