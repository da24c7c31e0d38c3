"""The ranking of the methods of several runs: mean ranks, their agreement, and what follows in words.

Legend: A runs, K metrics, N methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.audit.rank.draws import MeanRank, Ranks, draw_ranks
from pipeline.audit.rank.families import FAMILIES, TRUTH
from pipeline.audit.rank.members import Member, load_members
from pipeline.audit.rank.notes import notes_of
from pipeline.audit.rank.scope import RankedMetric, Scope, scope_of
from pipeline.audit.rank.statistics import kendalls_w, ranks_of
from pipeline.audit.rank.words import conclusions
from pipeline.audit.statistics import RESAMPLES, Numbers
from pipeline.audit.tables import rounded
from pipeline.results.reliability import Reliability, reliability, shipped_record
from schemas.judged import JudgedRecord

ALL, RELIABLE = "all metrics", "reliable metrics"
"""Names of the mean ranks over all metrics, and over those that are known to carry a conclusion about methods."""


@dataclass(frozen=True)
class Concordance:
    """Kendall's W of several judges, with as many as there are, controls left out.

    Attributes:
        w: the coefficient; over several runs, its mean. None if it does not exist.
        by_run: the coefficient in each run; empty if the runs are the judges.
        judges: number of judges.
    """

    w: float | None
    by_run: tuple[float | None, ...]
    judges: int

    @property
    def by_chance(self) -> float:
        """Return what judges reach on average that rank by chance."""
        return 1 / self.judges


@dataclass(frozen=True)
class Method:
    """One method: whether it is a control, its largest share of constant maps, and its mean ranks."""

    name: str
    is_control: bool
    constant: float
    groups: Mapping[str, MeanRank]
    metrics: Mapping[str, MeanRank]


@dataclass(frozen=True)
class Metric:
    """One metric: what is known of it, the number of images it rests on in each run, and how far the runs agree."""

    about: RankedMetric
    known: Reliability
    images: tuple[int, ...]
    over_runs: Concordance


@dataclass(frozen=True)
class Ranking:
    """The whole ranking.

    Attributes:
        members: the runs.
        methods: the methods, best first by all metrics.
        metrics: the metrics, by family.
        groups: the metrics of each group: all, the reliable ones, and each family that has one.
        concordance: how far the metrics of each group agree.
        notes: what a reader must know before.
        conclusions: what follows, in words.
    """

    members: Sequence[Member]
    methods: Sequence[Method]
    metrics: Sequence[Metric]
    groups: Mapping[str, Sequence[str]]
    concordance: Mapping[str, Concordance]
    notes: Sequence[str]
    conclusions: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        whole: dict[str, Any] = rounded({
            "runs": [_run_fields(member) for member in self.members],
            "methods": [_method_fields(method) for method in self.methods],
            "metrics": [_metric_fields(metric) for metric in self.metrics],
            "groups": {name: list(labels) for name, labels in self.groups.items()},
            "agreement": {name: _concordance_fields(one) for name, one in self.concordance.items()},
            "notes": list(self.notes),
            "conclusions": list(self.conclusions),
        })  # fmt: skip
        return whole


def rank(
    paths: Sequence[str],
    methods: Sequence[str] = (),
    metrics: Sequence[str] = (),
    record: JudgedRecord | None = None,
    resamples: int = RESAMPLES,
) -> Ranking:
    """Rank the methods of finished runs.

    Args:
        paths: the run folders.
        methods, metrics: names to be compared; empty for all that the runs share.
        record: says how far metrics can be believed; by default the one that comes with the package.
        resamples: number of resamples of the bootstrap.

    Raises:
        ConfigError: a path is no run, or the runs have too little in common.
        DamagedRunError: a run is damaged.
    """
    members = load_members(paths)
    scope = scope_of(members, methods, metrics)
    ranks = draw_ranks(members, scope, resamples)
    known = [reliability(record or shipped_record(), one.name, one.better, one.parameters) for one in scope.metrics]
    groups = _groups(scope.metrics, known)
    by_group = {name: ranks.mean_ranks(chosen) for name, chosen in groups.items()}
    by_metric = {metric.label: ranks.mean_ranks([k]) for k, metric in enumerate(scope.metrics)}
    found = [_method(members, scope, by_group, by_metric, n) for n in range(len(scope.methods))]
    first = next(iter(groups))
    honest = [n for n, name in enumerate(scope.methods) if name not in scope.controls]
    return Ranking(
        members=members,
        methods=sorted(found, key=lambda method: method.groups[first].value),
        metrics=[_metric(scope, ranks, known[k], k, honest) for k in range(len(scope.metrics))],
        groups={name: [scope.metrics[k].label for k in chosen] for name, chosen in groups.items()},
        concordance={name: _within(ranks.ranks_AKN, chosen, honest) for name, chosen in groups.items()},
        notes=notes_of(members, scope),
        conclusions=conclusions(scope, ranks, groups),
    )


def _groups(metrics: Sequence[RankedMetric], known: Sequence[Reliability]) -> dict[str, list[int]]:
    """Return the places of the metrics of each group; groups without a metric are left out."""
    judged = [k for k, metric in enumerate(metrics) if metric.family != TRUTH]
    groups = {ALL: judged, RELIABLE: [k for k in judged if known[k].carries()]}
    groups |= {family: [k for k, metric in enumerate(metrics) if metric.family == family] for family in FAMILIES}
    return {name: chosen for name, chosen in groups.items() if chosen}


def _method(
    members: Sequence[Member],
    scope: Scope,
    by_group: Mapping[str, Sequence[MeanRank]],
    by_metric: Mapping[str, Sequence[MeanRank]],
    n: int,
) -> Method:
    name = scope.methods[n]
    return Method(
        name=name,
        is_control=name in scope.controls,
        constant=max(member.constant.get(name, 0.0) for member in members),
        groups={group: found[n] for group, found in by_group.items()},
        metrics={metric: found[n] for metric, found in by_metric.items()},
    )


def _metric(scope: Scope, ranks: Ranks, known: Reliability, k: int, honest: Sequence[int]) -> Metric:
    runs = len(ranks.ranks_AKN)
    w = kendalls_w(_among(ranks.ranks_AKN[:, k], honest))
    images = tuple(scope.paired[a, k].images for a in range(runs))
    return Metric(scope.metrics[k], known, images, Concordance(w, (), runs))


def _within(ranks_AKN: Numbers, chosen: Sequence[int], honest: Sequence[int]) -> Concordance:
    """Return how far metrics agree, in each run and on average."""
    by_run = tuple(kendalls_w(_among(ranks_KN[chosen], honest)) for ranks_KN in ranks_AKN)
    known = [w for w in by_run if w is not None]
    return Concordance(float(np.mean(known)) if known else None, by_run, len(chosen))


def _among(ranks_JN: Numbers, chosen: Sequence[int]) -> Numbers:
    """Rank some of the methods among themselves."""
    if not chosen:
        return np.empty((len(ranks_JN), 0))
    return ranks_of(ranks_JN[:, chosen], "lower")


def _run_fields(member: Member) -> dict[str, Any]:
    identity = member.manifest.identity
    return {
        "run": member.name, "run_id": member.manifest.run_id, "model": member.model,
        "weights_sha256": identity.model.get("weights_sha256"), "images": len(member.values),
        "targets": identity.targets, "precision": identity.precision, "state": member.state,
        "is_complete": member.is_complete,
    }  # fmt: skip


def _method_fields(method: Method) -> dict[str, Any]:
    return {
        "method": method.name, "is_control": method.is_control, "constant": method.constant,
        "groups": {name: _rank_fields(one) for name, one in method.groups.items()},
        "metrics": {name: _rank_fields(one) for name, one in method.metrics.items()},
    }  # fmt: skip


def _rank_fields(one: MeanRank) -> dict[str, Any]:
    return {**asdict(one), "deviation": one.deviation}


def _metric_fields(metric: Metric) -> dict[str, Any]:
    known = metric.known
    return {
        "metric": metric.about.label, "name": metric.about.name, "family": metric.about.family,
        "better": metric.about.better, "images": list(metric.images), "carries": known.carries(),
        "pairs_right": known.pairs(), "marks": known.marks(),
        "agreement_of_runs": _concordance_fields(metric.over_runs),
    }  # fmt: skip


def _concordance_fields(one: Concordance) -> dict[str, Any]:
    return {"w": one.w, "by_run": list(one.by_run), "judges": one.judges, "by_chance": one.by_chance}
