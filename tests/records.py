"""Records of judged metrics, with the numbers that a test wants to see."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.judged import JudgedRecord

RUINS = ("shifted", "other_part", "inverted", "noise")


def agreement(tau: float | None, half_width: float = 0.05) -> dict[str, Any] | None:
    """Return an agreement with an interval around it."""
    if tau is None:
        return None
    return {"tau": tau, "low": max(-1.0, tau - half_width), "high": min(1.0, tau + half_width), "scenes": 600}


def judged(
    mass: float | None = 0.5,
    rank: float | None = 0.4,
    order: Mapping[str, float | None] | float | None = 0.95,
    **changes: Any,
) -> dict[str, Any]:
    """Return the measurements of one metric: a good one, unless told otherwise."""
    methods = {"mass": agreement(mass), "rank": agreement(rank)}
    known = dict(order) if isinstance(order, Mapping) else dict.fromkeys(RUINS, order)
    return {
        "better": "lower", "params": {"fill": "mean", "mask": "soft", "share": 0.15}, "needs": "nothing",
        "agreement": {"methods": methods, "ruins": methods}, "order": known,
        "free_gains": {"blur": {"rewarded": 0.3, "gain": -0.1}},
        "size": {"rho": 0.1, "low": 0.0, "high": 0.2}, "repeatability": {"alpha": 0.4, "scenes_needed": 120},
        "by_network": {"plain": methods, "vit": None},
    } | changes  # fmt: skip


def record_fields(**metrics: dict[str, Any]) -> dict[str, Any]:
    """Return a whole record."""
    network = {"scenes": 200, "accuracy": 0.97, "weights_sha256": "00", "own_share": 0.93}
    score = {"mean": 0.43, "low": 0.4, "high": 0.46}
    return {
        "version": 1, "seed": 0, "versions": {"camatlas": "0.1.0"}, "networks": {"plain": network, "vit": network},
        "rules": {"one": 200, "and": 200},
        "candidates": {"methods": ["gradcam"], "ruins": ["truth", *RUINS], "changes": ["blur"]},
        "metrics": metrics, "methods": {"gradcam": {"mass": score, "rank": None}},
    }  # fmt: skip


def record(**metrics: dict[str, Any]) -> JudgedRecord:
    """Return a whole record, parsed."""
    return JudgedRecord.model_validate(record_fields(**metrics))


def written(path: Path, fields: Mapping[str, Any]) -> Path:
    """Write a record to a file."""
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path
