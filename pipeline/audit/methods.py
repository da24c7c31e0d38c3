"""Findings about methods: maps that do not depend on the model, are the same for every image, or are constant."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.audit.checked import Checked, Verdict, not_checked
from pipeline.audit.findings import MIN_IMAGES, MIN_SHARE, Effect, Finding, percent
from pipeline.audit.follows import SANITY_THRESHOLD, effect_of
from pipeline.audit.intervals import correlations, side
from pipeline.audit.maps import Maps, standardised
from pipeline.audit.statistics import RARE, wilson
from pipeline.cams import CONTROLS

CONSTANT_CORRELATION = 0.98
"""A method ignores the image when the mean correlation of its maps with their mean map reaches this."""

NAME_IMAGE, NAME_CONSTANT = "The same map for every image", "Constant maps"
_MOST = 500
_ADVICE = "Do not use the maps of this method on this model as evidence."
_ORDER = ("found", "undecided", "not found")
_VERDICTS: Mapping[str, Verdict] = {"above": "found", "undecided": "undecided", "below": "not found"}


def without_controls(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the methods of a run whose maps may suggest something: all but the controls."""
    return [label for label, fields in methods.items() if fields["name"] not in CONTROLS]


def untrusted(
    sanity_rows: Sequence[Mapping[str, Any]], maps: Maps, board: Sequence[Mapping[str, Any]], images: int
) -> tuple[list[Finding], list[Checked]]:
    """Report the methods that ignore the model or the image, or whose maps are mostly constant.

    Args:
        sanity_rows: the rows of `follows.sanity`.
        maps: the maps of the run.
        board: the rows of the leaderboard.
        images: number of explained images.
    """
    findings = [_ignores(row) for row in sanity_rows if row["follows"] == "no"]
    same = {method: _same(maps, method, images) for method in maps.by_method}
    known = {method: effect for method, effect in same.items() if effect is not None}
    findings += [_constant(method, effect) for method, effect in known.items() if _judged(effect) == "found"]
    degenerate = {method: _degenerate(board, method) for method in dict.fromkeys(row["method"] for row in board)}
    findings += [
        _degenerate_finding(method, effect) for method, effect in degenerate.items() if _mostly(effect) == "found"
    ]
    return findings, [_check_same(known, images), _check_degenerate(degenerate)]


def _same(maps: Maps, method: str, images: int) -> Effect | None:
    """Measure the mean correlation of the non-constant maps of a method with their mean; None for fewer than 20."""
    rows = np.arange(images)[:: max(1, -(-images // _MOST))]
    heat_Buv = maps.consensus([method], rows)
    shown_Buv = heat_Buv[heat_Buv.any((1, 2))]
    if len(shown_Buv) < RARE:
        return None
    mean_P = standardised(shown_Buv.mean(0, dtype=np.float64)[None])[0]
    value, low, high, count = correlations((standardised(shown_Buv) @ mean_P).astype(np.float64))
    what = f"correlation of the maps of {method} with their mean map"
    return Effect(what, value or 0.0, low, high, count)


def _judged(effect: Effect) -> Verdict:
    return _VERDICTS[side(effect.low, effect.high, CONSTANT_CORRELATION)]


def _degenerate(board: Sequence[Mapping[str, Any]], method: str) -> Effect:
    """Measure the share of constant maps of a method over all its targets."""
    rows = [row for row in board if row["method"] == method]
    maps = sum(row["images"] for row in rows)
    constant = sum(round(row["images"] * (row["degenerate"] or 0.0)) for row in rows)
    return Effect(f"constant maps of {method}", constant / max(1, maps), *wilson(constant, maps), maps)


def _mostly(effect: Effect) -> Verdict:
    return _VERDICTS[side(effect.low, effect.high, MIN_SHARE)] if effect.images >= MIN_IMAGES else "undecided"


def _check_same(known: Mapping[str, Effect], images: int) -> Checked:
    if not known:
        return not_checked("image", NAME_IMAGE, "leaderboard", f"no method has {RARE} maps that are not constant")
    return _worst("image", NAME_IMAGE, {m: (_judged(e), e) for m, e in known.items()}, images, CONSTANT_CORRELATION)


def _check_degenerate(shares: Mapping[str, Effect]) -> Checked:
    judged = {method: (_mostly(effect), effect) for method, effect in shares.items()}
    images = max((effect.images for effect in shares.values()), default=0)
    return _worst("constant", NAME_CONSTANT, judged, images, MIN_SHARE)


def _worst(
    detector: str, name: str, judged: Mapping[str, tuple[Verdict, Effect]], images: int, limit: float
) -> Checked:
    """Return the line that shows the method with the worst verdict, and among these the largest value."""
    if not judged:
        return not_checked(detector, name, "leaderboard", "the run has no maps")
    method = min(judged, key=lambda one: (_ORDER.index(judged[one][0]), -judged[one][1].value, one))
    verdict, effect = judged[method]
    alike = [one for one, (own, _) in judged.items() if own == verdict]
    why = f"{len(alike)} of {len(judged)} methods" + (f": {', '.join(alike)}" if verdict != "not found" else "")
    command = "explain more images" if verdict == "undecided" else ""
    return Checked(detector, name, verdict, "leaderboard", images, effect, None, f"limit {limit}", why, command)


def _ignores(row: Mapping[str, Any]) -> Finding:
    return Finding(
        "method", row["method"], row["method"], "sanity", "intervened",
        f"The maps of {row['method']} do not depend on the model. After all weights are randomised, the maps have a "
        f"mean rank correlation of {row['spearman']:.2f} with the original maps (limit {SANITY_THRESHOLD}).",
        effect_of(row) or Effect("", 0.0, None, None, 0),
        "All weights of the model were randomised, and the maps computed again (`camatlas sanity`).",
        _ADVICE,
    )  # fmt: skip


def _constant(method: str, effect: Effect) -> Finding:
    return Finding(
        "method", method, method, "leaderboard", "recorded",
        f"The maps of {method} are nearly the same for every image: their mean correlation with their mean map is "
        f"{effect.value:.2f} (limit {CONSTANT_CORRELATION}).",
        effect,
        f"The non-constant maps of at most {_MOST} images were correlated with their mean map.",
        _ADVICE,
    )  # fmt: skip


def _degenerate_finding(method: str, effect: Effect) -> Finding:
    return Finding(
        "method", method, method, "leaderboard", "recorded",
        f"{percent(effect.value)} of the maps of {method} are constant, and show nothing (limit {percent(MIN_SHARE)}).",
        effect,
        "Constant maps were counted in the rows of the run.",
        "Use another method or target layer. Metrics of this method are means over its other maps only.",
    )  # fmt: skip
