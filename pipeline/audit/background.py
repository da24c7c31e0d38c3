"""Reliance on the surroundings: confidence without the object, with the object alone, and energy outside the box.

A correct prediction relies on the surroundings when its confidence is at least 0.5 with the object removed, and below
0.5 with the object alone. The run computes both as metrics (`box_removed_confidence`, `box_only_confidence`).

A class that the model predicts for any image without an object meets the same condition. As a control, the objects are
removed from images of other classes. If the model then predicts the class for many of them, the finding is dropped.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.audit.findings import MIN_IMAGES, Effect, Finding, percent
from pipeline.audit.statistics import Indices, wilson
from pipeline.audit.tables import class_name, query_table, quoted
from pipeline.audit.values import Flags, Values, metric_label
from pipeline.maps.codec import FloatArray
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.rerun import as_pixels
from pipeline.results.source_images import Original

MAX_POINTS, MAX_CLASSES = 400, 4
MAJORITY = 0.5
"""The interval of the share of reliant predictions must lie at or above it, that of the control below."""

_CLASSES = """
SELECT class, count(*) AS images, avg(removed) AS removed, avg(alone) AS alone,
  avg((removed >= 0.5 AND alone < 0.5)::INT) AS relies
FROM (SELECT predicted AS class, any_value({removed}) AS removed,
    any_value({alone}) AS alone FROM explanations
  WHERE predicted = target AND {right} GROUP BY shard, image_key, predicted)
WHERE removed IS NOT NULL AND alone IS NOT NULL GROUP BY class ORDER BY images < 20, relies DESC, images DESC, class
"""


def background(run: Run, values: Values, passing_methods: list[str]) -> tuple[dict[str, Any], list[Finding]]:
    """Compute the section, and findings for at most MAX_CLASSES classes that rely on their surroundings."""
    labels = _labels(run)
    if len(labels) < 2:
        return {"asked": False, "classes": {"rows": [], "sql": ""}, "points": [], "outside": []}, []
    columns = {name: quoted(label) for name, label in labels.items()}
    table = query_table(run, _CLASSES.format(right=_right(run), **columns))
    removed_I, alone_I = values.metric(labels["removed"]), values.metric(labels["alone"])
    right_I = (values.correct_I != 0) & np.isfinite(removed_I) & np.isfinite(alone_I)
    relies_I = right_I & (removed_I >= 0.5) & (alone_I < 0.5)
    for row in table["rows"]:
        row["name"] = class_name(run, row["class"])
        row["low"], row["high"] = wilson(round(row["relies"] * row["images"]), row["images"])
    section = {
        "asked": True,
        "classes": {**table, "rows": table["rows"][:50]},
        "points": _points(removed_I, alone_I, right_I),
        "outside": _outside(run, values),
    }
    return section, _findings(run, values, right_I, relies_I, passing_methods)


def without_objects(picture: Original, fill_C: Sequence[float]) -> FloatArray:
    """Fill the boxes of an image with one colour; returns pixels (H, W, C) in [0, 1]."""
    pixels_HWC = as_pixels(picture).copy()
    for x0, y0, x1, y1 in picture.boxes_xyxy or ():
        pixels_HWC[max(0, math.floor(y0)) : math.ceil(y1), max(0, math.floor(x0)) : math.ceil(x1)] = fill_C
    return pixels_HWC


def with_control(finding: Finding, confidences_BN: FloatArray, predicted_B: Indices) -> Finding | None:
    """Apply the control to a finding; None when the model also predicts the class for other images without objects.

    Args:
        finding: a finding of `background`.
        confidences_BN: confidences of images with their objects removed.
        predicted_B: predicted classes of the unmodified images.
    """
    predicts_B = confidences_BN[predicted_B != int(finding.subject), int(finding.subject)] >= 0.5
    if len(predicts_B) < MIN_IMAGES:
        return finding
    _, high = wilson(int(predicts_B.sum()), len(predicts_B))
    if high is None or high >= MAJORITY:
        return None
    control = (
        f" Control: with the objects removed from {len(predicts_B)} images of other classes, the model gives "
        f"this class a confidence of 0.5 or more for {percent(float(predicts_B.mean()))} of them."
    )
    return replace(finding, proof=finding.proof + control)


def _right(run: Run) -> str:
    """Return the SQL that keeps predictions that are right, or of which it is not known."""
    if not OutputKind.of(run.manifest).is_independent:
        return "predicted = coalesce(label, predicted)"
    return "(shard, image_key) NOT IN (SELECT (shard, image_key) FROM images WHERE NOT correct)"


def _labels(run: Run) -> dict[str, str]:
    """Map `removed` and `alone` to the column names of their metrics; a metric that the run lacks is left out."""
    wanted = {"box_removed_confidence": "removed", "box_only_confidence": "alone"}
    specs = run.manifest.identity.metrics.items()
    return {wanted[str(fields["name"])]: label for label, fields in specs if fields["name"] in wanted}


def _points(removed_I: Any, alone_I: Any, right_I: Flags) -> list[dict[str, float]]:  # noqa: ANN401
    rows = np.flatnonzero(right_I)
    rows = rows[:: max(1, -(-len(rows) // MAX_POINTS))]
    return [{"removed": float(removed_I[row]), "alone": float(alone_I[row])} for row in rows]


def _outside(run: Run, values: Values) -> list[dict[str, Any]]:
    """Compute each method's mean share of energy outside the box."""
    label = metric_label(run, "energy_in_box")
    if label is None:
        return []
    rows = []
    for method in run.manifest.identity.methods:
        outside_I = 1 - values.metric(label, method)
        known_I = outside_I[np.isfinite(outside_I)]
        rows.append(
            {"method": method, "images": len(known_I), "outside": float(known_I.mean()) if len(known_I) else None}
        )
    return rows


def _findings(run: Run, values: Values, right_I: Flags, relies_I: Flags, passing_methods: list[str]) -> list[Finding]:
    """Report the worst classes; the sentence of the first gives the number of classes concerned."""
    bad: dict[int, Effect] = {}
    for index in np.unique(values.predicted_I[right_I]):
        rows_I = right_I & (values.predicted_I == index)
        first, second = (_effect(relies_I[rows_I & (values.held_out_I == half)]) for half in (False, True))
        if first and second and min(first.low, second.low) >= MAJORITY:
            bad[int(index)] = second
    worst = sorted(bad, key=lambda index: (-bad[index].low, index))[:MAX_CLASSES]
    findings = []
    for rank, index in enumerate(worst):
        rows_I = right_I & (values.predicted_I == index) & values.held_out_I
        outside = _methods_outside(run, values, rows_I, passing_methods)
        total = len(bad) if rank == 0 and len(bad) > 1 else 0
        findings.append(_finding(index, class_name(run, index), bad[index], outside, total))
    return findings


def _finding(index: int, name: str, effect: Effect, outside: list[str], classes: int) -> Finding:
    also = f" This holds for {classes} classes in total." if classes else ""
    return Finding(
        "background", str(index), name, "background", "replicated" if len(outside) > 1 else "intervened",
        f"The model predicts '{name}' from the surroundings: for {percent(effect.value)} of its correct predictions, "
        f"the confidence is 0.5 or more with the object removed, and less than 0.5 with the object alone.{also}",
        effect,
        "The run scored each image with its boxes removed, and with nothing but its boxes. On both halves of the "
        "images, the 95 % interval of the share lies at or above 50 %. The value is that of the held-out half."
        + (f" Maps with most of their energy outside the box: {', '.join(outside)}." if outside else ""),
        "Collect images of this class in other surroundings. See the scatter plot of confidence without the object.",
    )  # fmt: skip


def _effect(relies_I: Flags) -> Effect | None:
    if len(relies_I) < MIN_IMAGES:
        return None
    low, high = wilson(int(relies_I.sum()), len(relies_I))
    what = "correct predictions that rely on the surroundings"
    return Effect(what, float(relies_I.mean()), low or 0.0, high or 0.0, len(relies_I))


def _methods_outside(run: Run, values: Values, rows_I: Flags, passing_methods: list[str]) -> list[str]:
    """Name the methods that passed the sanity check and whose mean energy lies mostly outside the box."""
    label = metric_label(run, "energy_in_box")
    if label is None:
        return []
    energies = {method: values.metric(label, method)[rows_I] for method in passing_methods}
    return [m for m, inside_I in energies.items() if np.isfinite(inside_I).any() and float(np.nanmean(inside_I)) < 0.5]
