"""Findings about methods: maps that do not depend on the model, or that are the same for every image."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.audit.findings import Effect, Finding
from pipeline.audit.leaderboard import SANITY_THRESHOLD
from pipeline.audit.maps import Maps, standardised
from pipeline.audit.statistics import RARE

CONSTANT_CORRELATION = 0.98
"""A method ignores the image when the mean correlation of its maps with their mean map reaches this."""


def untrusted(sanity_rows: list[dict[str, Any]], maps: Maps) -> list[Finding]:
    """Report the methods that failed the sanity check, and those with the same map for every image."""
    failed = [row for row in sanity_rows if not row["passed"]]
    correlations = {method: correlation_with_mean(maps, method) for method in maps.by_method}
    findings = [_ignores(row) for row in failed]
    known = {finding.subject for finding in findings}
    return findings + [
        _constant(method, correlation, len(maps.by_method[method]))
        for method, correlation in correlations.items()
        if correlation is not None and correlation >= CONSTANT_CORRELATION and method not in known
    ]


def correlation_with_mean(maps: Maps, method: str) -> float | None:
    """Return the mean correlation of the non-constant maps of a method with their mean; None for fewer than 20 maps."""
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
        f"The maps of {row['method']} do not depend on the model: after all weights are randomised, the maps have a "
        f"mean rank correlation of {row['spearman']:.2f} with the original maps (limit {SANITY_THRESHOLD}).",
        Effect("rank correlation after randomisation", row["spearman"], row["spearman"] - half, row["spearman"] + half,
               row["maps"]),
        "All weights of the model were randomised, and the maps computed again (`camatlas sanity`).",
        "Do not use the maps of this method on this model as evidence.",
    )  # fmt: skip


def _constant(method: str, correlation: float, images: int) -> Finding:
    return Finding(
        "method", method, method, "leaderboard", "recorded",
        f"The maps of {method} are nearly the same for every image: their mean correlation with their mean map is "
        f"{correlation:.2f} (limit {CONSTANT_CORRELATION}).",
        Effect("correlation with the mean map", correlation, correlation, correlation, images),
        "The non-constant maps of this method, one per image, were correlated with their mean map.",
        "Do not use the maps of this method on this model as evidence.",
    )  # fmt: skip
