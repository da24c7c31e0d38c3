"""Which metrics of a run can carry a conclusion about methods, by a record of exact truth."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.audit.leaderboard import metrics
from pipeline.results.marks import listed
from pipeline.results.query import Run
from pipeline.results.reliability import Reliability, reliability
from schemas.judged import JudgedRecord

_METHOD = (
    "Reliability is measured by `camatlas judge` on drawn scenes, where the worth of each part to a network is known "
    "exactly: how many pairs of methods a metric orders as the truth does (mass: where the map stands; rank: how it "
    "orders the parts), and which maps it prefers without knowledge. `camatlas metrics NAME` prints it for each metric."
)


def judgement(run: Run, record: JudgedRecord, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compute the section: a sentence on all metrics, what is known of each, and bests that rest on a weak metric.

    Args:
        run: the run.
        record: the measurements on exact truth.
        rows: the rows of the leaderboard.
    """
    known = {
        label: reliability(record, about["name"], about["better"], run.manifest.identity.metrics[label])
        for label, about in metrics(run).items()
    }
    return {
        "record": {"seed": record.seed, "scenes": record.scenes, "versions": record.versions},
        "sentence": _sentence(known, record),
        "metrics": {label: _described(one) for label, one in known.items()},
        "doubtful_bests": _doubtful_bests(known, rows),
        "method": _METHOD,
    }


def _described(known: Reliability) -> dict[str, Any]:
    """Describe a metric: verdict, the mark to be shown beside it, all marks, and the numbers in one line."""
    marks = known.faults() or known.preferences()
    return {
        "ranks": known.ranks,
        "judged": known.is_known,
        "carries": known.carries(),
        "mark": marks[0].short if marks else "",
        "marks": known.marks(),
        "pairs_right": known.pairs(),
        "line": known.line(),
    }


def _doubtful_bests(known: Mapping[str, Reliability], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List the best methods by metrics that cannot carry a conclusion."""
    return [
        {"target_rule": row["target_rule"], "metric": label, "method": row["method"], "why": known[label].marks()[0]}
        for row in rows
        for label, estimate in row["intervals"].items()
        if estimate["best"] and not known[label].carries()
    ]


def _sentence(known: Mapping[str, Reliability], record: JudgedRecord) -> str:
    """Name the metrics that can carry a conclusion about methods, and those that cannot, each with the reason."""
    ranking = {label: one for label, one in known.items() if one.ranks}
    if not ranking:
        return ""
    can = [label + _caveat(one) for label, one in ranking.items() if one.carries()]
    cannot = _by_reason({label: one for label, one in ranking.items() if one.is_known})
    unknown = _by_reason({label: one for label, one in ranking.items() if not one.is_known})
    start = f"Judged on {record.scenes} drawn scenes with exact truth, "
    if not can:
        return f"{start}no metric of this run is known to carry a conclusion about methods: {listed(cannot + unknown)}."
    parts = [
        f"{listed(can)} can carry a conclusion about methods",
        *([f"{listed(cannot)} cannot"] if cannot else []),
        *([f"nothing is known of {listed(unknown)}"] if unknown else []),
    ]
    return f"{start}{'; '.join(parts)}."


def _by_reason(known: Mapping[str, Reliability]) -> list[str]:
    """Name the metrics that carry no conclusion, those with the same reason together."""
    labels: dict[str, list[str]] = {}
    for label, one in known.items():
        for fault in one.faults()[:1]:
            labels.setdefault(fault.short, []).append(label)
    return [f"{listed(names)} ({reason})" for reason, names in labels.items()]


def _caveat(known: Reliability) -> str:
    preferences = [mark.short for mark in known.preferences()]
    return f" (though it {listed(preferences)})" if preferences else ""
