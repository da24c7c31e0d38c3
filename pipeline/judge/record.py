"""Turns what was measured on all networks into the record of the judge, `judge.json`.

Legend: S scenes, M maps, K candidates, Q metrics.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipeline.judge.candidates import CHANGES, RUINS, TRUTH
from pipeline.judge.measuring import BASES, Measured, Values
from pipeline.judge.statistics import (
    agreement,
    gain,
    krippendorff_alpha,
    mean_interval,
    ranks,
    scenes_needed,
    share_above,
    spearman_by_scene,
)
from pipeline.metrics import Metric, reads_boxes, reads_parts

Read = Callable[[Measured, Sequence[str]], Values]
"""Function of a network and candidates to their values, (S, M), oriented so that larger is better."""
SCORES = ("mass", "rank")
"""The scores against the truth that every other metric is compared with."""

DIRECTIONS = {"sparsity": "higher", "entropy": "lower", "total_variation": "lower", "energy_outside_centre": "lower"}
"""How metrics that call no direction better are read when they are judged all the same."""


def judge_metrics(by_network: Mapping[str, Measured], metrics: Mapping[str, Metric], seed: int) -> dict[str, Any]:
    """Judge every metric on all networks together, and its agreement on each network alone."""
    return {name: _judged(name, metric, by_network, seed) for name, metric in metrics.items()}


def judge_methods(by_network: Mapping[str, Measured], seed: int) -> dict[str, Any]:
    """Return the mean scores of every method against the truth, and those of the truth map itself."""
    names = _names(by_network.values(), "method/")
    return {
        name: {
            score: mean_interval(
                np.concatenate([_column(one, f"method/{name}", score) for one in by_network.values()]), seed
            )
            for score in SCORES
        }
        for name in names
    }


def rules(by_network: Mapping[str, Measured]) -> dict[str, int]:
    """Count the scenes of each rule."""
    return dict(sorted(Counter(rule for one in by_network.values() for rule in one.rules).items()))


def candidates(by_network: Mapping[str, Measured]) -> dict[str, list[str]]:
    """List the candidates by their kind."""
    methods = _names(by_network.values(), "method/")
    return {"methods": methods, "ruins": list(RUINS), "changes": list(CHANGES)}


def own_share(one: Measured) -> float:
    """Return the mean share of positive value in parts that the rule of the class reads."""
    return float(np.mean(one.own))


def _judged(name: str, metric: Metric, by_network: Mapping[str, Measured], seed: int) -> dict[str, Any]:
    networks = list(by_network.values())
    direction = DIRECTIONS.get(name, metric.better) if metric.better == "neither" else metric.better
    sign = -1.0 if direction == "lower" else 1.0

    def values(one: Measured, candidates: Sequence[str]) -> Values:
        return sign * np.stack([_column(one, candidate, name) for candidate in candidates], 1)

    def tau(over: str, score: str, among: Iterable[Measured]) -> dict[str, Any] | None:
        taus = [
            agreement(values(one, chosen), np.stack([_column(one, k, score) for k in chosen], 1))
            for one in among
            for chosen in [_chosen(one, over)]
        ]
        found = mean_interval(np.concatenate(taus), seed)
        return None if found is None else {"tau": found["mean"], **{k: v for k, v in found.items() if k != "mean"}}

    truth_S = np.concatenate([values(one, [f"ruin/{TRUTH}"])[:, 0] for one in networks])
    order = {
        ruin: share_above(truth_S, np.concatenate([values(one, [f"ruin/{ruin}"])[:, 0] for one in networks]))
        for ruin in RUINS
        if ruin != TRUTH
    }
    pooled = [values(one, _chosen(one, "method/")) for one in networks]
    return {
        "better": metric.better,
        "direction": direction,
        "params": asdict(metric),  # type: ignore[call-overload]
        "needs": "boxes" if reads_boxes(metric) else "parts" if reads_parts(metric) else "nothing",
        "agreement": {
            over: {score: tau(prefix, score, networks) for score in SCORES}
            for over, prefix in (("methods", "method/"), ("ruins", "ruin/"))
        },
        "order": order,
        "free_gains": {change: _free_gain(change, networks, values, pooled) for change in CHANGES},
        "size": _size(networks, values, seed),
        "repeatability": _repeatability(pooled),
        "by_network": {
            network: {score: tau("method/", score, [one]) for score in SCORES} for network, one in by_network.items()
        },
    }


def _free_gain(
    change: str, networks: Sequence[Measured], values: Read, pooled: Sequence[Values]
) -> dict[str, Any] | None:
    """Compare every base map with its changed one; the unit is the spread of the metric over the methods."""
    pairs = [(one, base) for one in networks for base in BASES]
    changed_S = np.concatenate([values(one, [f"change/{base}/{change}"])[:, 0] for one, base in pairs])
    before_S = np.concatenate([values(one, [_base(base)])[:, 0] for one, base in pairs])
    known = [array_SM[np.isfinite(array_SM).any(1)] for array_SM in pooled]
    spread = np.concatenate([np.nanstd(array_SM, axis=1) for array_SM in known])
    found = gain(changed_S, before_S, float(spread.mean()) if len(spread) else 0.0)
    return None if found is None else {"rewarded": found[0], "gain": found[1]}


def _base(name: str) -> str:
    return f"ruin/{TRUTH}" if name == TRUTH else f"method/{name}"


def _size(networks: Sequence[Measured], values: Read, seed: int) -> dict[str, Any] | None:
    regions = [k for k in networks[0].candidates if k.startswith("region/")]
    rho_S = np.concatenate(
        [spearman_by_scene(values(one, regions), np.arange(len(regions), dtype=np.float64)) for one in networks]
    )
    found = mean_interval(rho_S, seed)
    return None if found is None else {"rho": found["mean"], "low": found["low"], "high": found["high"]}


def _repeatability(pooled: Sequence[Values]) -> dict[str, Any] | None:
    """Judge the ranking of methods on each network, and take the mean alpha and the largest number of scenes."""
    found = [(krippendorff_alpha(ranks_SM), scenes_needed(ranks_SM)) for ranks_SM in map(ranks, pooled)]
    alphas = [alpha for alpha, _ in found if alpha is not None]
    if not alphas:
        return None
    needed = [count for _, count in found if count is not None]
    return {"alpha": float(np.mean(alphas)), "scenes_needed": max(needed) if min(alphas) > 0 else None}


def _chosen(one: Measured, prefix: str) -> list[str]:
    return [candidate for candidate in one.candidates if candidate.startswith(prefix)]


def _names(networks: Iterable[Measured], prefix: str) -> list[str]:
    return list(dict.fromkeys(k.removeprefix(prefix) for one in networks for k in _chosen(one, prefix)))


def _column(one: Measured, candidate: str, metric: str) -> Values:
    """Return the values of one candidate by one metric, (S,); NaN if a network does not have it."""
    if candidate not in one.candidates:
        return np.full(len(one.keys), np.nan)
    column: Values = one.values_SKQ[:, one.candidates.index(candidate), one.metrics.index(metric)]
    return column
