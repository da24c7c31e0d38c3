"""Methods that cannot be trusted on this model: their maps ignore it, or are the same for every image."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.audit.findings import Effect, Finding
from pipeline.audit.leaderboard import SANE_BELOW
from pipeline.audit.maps import Maps, standardised
from pipeline.audit.statistics import RARE

ALWAYS_THE_SAME = 0.98
"""Mean correlation of a method's maps with their own mean from which it says nothing of the image."""


def untrusted(sanity_rows: list[dict[str, Any]], maps: Maps) -> list[Finding]:
    """Name the methods that failed the sanity check, or draw the same map for every image."""
    failed = [row for row in sanity_rows if not row["passed"]]
    alike = {method: found for method in maps.by_method if (found := likeness(maps, method)) is not None}
    findings = [_ignores(row) for row in failed]
    known = {finding.subject for finding in findings}
    return findings + [
        _constant(method, found, len(maps.by_method[method]))
        for method, found in alike.items()
        if found >= ALWAYS_THE_SAME and method not in known
    ]


def likeness(maps: Maps, method: str) -> float | None:
    """Mean correlation of a method's maps with their mean; None for fewer than 20 that show something."""
    maps_Iuv = maps.by_method[method]
    shown_Iuv = maps_Iuv[maps_Iuv.any((1, 2))]
    if len(shown_Iuv) < RARE:
        return None
    mean_P = standardised(shown_Iuv.mean(0, dtype=np.float64)[None])[0]
    return float((standardised(shown_Iuv) @ mean_P).mean())


def _ignores(row: Mapping[str, Any]) -> Finding:
    half = row["half_width"] or 0.0
    return Finding(
        "method", row["method"], row["method"], "leaderboard", "intervened",
        f"The maps of {row['method']} do not follow the model: with random weights they keep a rank correlation of "
        f"{row['spearman']:.2f} with its own (a method that explains the model falls below {SANE_BELOW}).",
        Effect("rank correlation with random weights", row["spearman"], row["spearman"] - half, row["spearman"] + half,
               row["maps"]),
        "All weights were made random, and the maps drawn again (`camatlas sanity`).",
        "Draw no conclusion from this method's maps on this model.",
    )  # fmt: skip


def _constant(method: str, found: float, images: int) -> Finding:
    return Finding(
        "method", method, method, "leaderboard", "recorded",
        f"The maps of {method} are the same for every image (correlation with their mean {found:.2f}).",
        Effect("correlation with the mean map", found, found, found, images),
        "Every map of the run was compared with the mean of all.",
        "Draw no conclusion from this method's maps on this model.",
    )  # fmt: skip
