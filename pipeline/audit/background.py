"""Context reliance: confidence without the object, with the object alone, and energy outside the box.

A correct prediction relies on its context when its confidence is at least 0.5 with the object removed, and below
0.5 with the object alone. The run computes both as metrics (`box_removed_confidence`, `box_only_confidence`).

A class that the model predicts for any image without an object meets the same condition. As a control, the objects are
removed from images of other classes. The finding is dropped if the model then predicts the class for many of them, or
for many of those that do not keep their own class: the context of the others may decide.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.audit.checked import Checked, Verdict, not_checked
from pipeline.audit.findings import MIN_IMAGES, Effect, Finding, percent, share_of
from pipeline.audit.intervals import side
from pipeline.audit.statistics import Indices, wilson
from pipeline.audit.tables import class_name, query_table
from pipeline.audit.values import Flags, Values, metric_label
from pipeline.maps.codec import FloatArray
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.rerun import as_pixels
from pipeline.results.source_images import Original
from pipeline.results.sql_engine import quoted

MAX_POINTS, MAX_CLASSES = 400, 4
MAJORITY = 0.5
"""The interval of the share of reliant predictions must lie at or above it, that of the control below."""

NAME = "Context reliance"
_RELIES = "correct predictions that rely on the context"
_WANTED = "requires boxes, and the metrics box_removed_confidence and box_only_confidence in the run file"

_CLASSES = """
SELECT class, count(*) AS images, avg(removed) AS removed, avg(alone) AS alone,
  avg((removed >= 0.5 AND alone < 0.5)::INT) AS relies
FROM (SELECT predicted AS class, any_value({removed}) AS removed,
    any_value({alone}) AS alone FROM explanations
  WHERE predicted = target AND {right} GROUP BY shard, image_key, predicted)
WHERE removed IS NOT NULL AND alone IS NOT NULL GROUP BY class ORDER BY images < 20, relies DESC, images DESC, class
"""


@dataclass(frozen=True)
class Context:
    """Result of the section.

    Attributes:
        section: the facts of the section.
        findings: at most MAX_CLASSES classes that rely on their context, before the control.
        tested: for each class that is large enough, the share of reliant predictions on each half.
        images: number of correct predictions with both confidences.
    """

    section: dict[str, Any]
    findings: list[Finding]
    tested: dict[int, tuple[Effect, Effect]]
    images: int


def background(run: Run, values: Values, following: list[str]) -> Context:
    """Compute the section, and findings for at most MAX_CLASSES classes that rely on their context.

    Args:
        run: the run.
        values: its values.
        following: the methods that follow the model, whose maps count as evidence.
    """
    labels = _labels(run)
    if len(labels) < 2:
        return Context({"asked": False, "classes": {"rows": [], "sql": ""}, "points": [], "outside": []}, [], {}, 0)
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
    found = _findings(run, values, right_I, relies_I, following)
    return Context(section, found, _tested(values, right_I, relies_I), int(right_I.sum()))


def worst_class(context: Context) -> int | None:
    """Return the class with the largest share on the half that is searched; None where no class is large enough."""
    return min(context.tested, key=lambda index: (-context.tested[index][0].value, index), default=None)


def check(run: Run, context: Context, control: Effect | None, kept: Sequence[Finding]) -> Checked:
    """Return the line about context reliance.

    Args:
        run: the run.
        context: the result of the section.
        control: what the control of that class measured, if it could be measured.
        kept: the findings that passed their control.
    """
    if not context.section["asked"]:
        return not_checked("context", NAME, "context", _WANTED, "add both metrics to the run file and explain again")
    if not context.tested:
        few = f"no class has {MIN_IMAGES} correct predictions with boxes in each half of the images"
        return not_checked("context", NAME, "context", few)
    sides = {index: _side(halves) for index, halves in context.tested.items()}
    shown = int(kept[0].subject) if kept else worst_class(context) or 0
    dropped = len(context.findings) - len(kept)
    verdict: Verdict = "found" if kept else "undecided" if "undecided" in sides.values() else "not found"
    counted = f"{len(sides)} classes tested, {sum(one == 'undecided' for one in sides.values())} undecided"
    failed = f"; {dropped} failed the control: the model gives the class to images without objects" if dropped else ""
    first = kept[0] if kept else None
    return Checked(
        "context", NAME, verdict, "context", context.images, _named(context.tested[shown][1], class_name(run, shown)),
        first.control if first else control, f"limit {MAJORITY}", counted + failed,
        "explain more images with boxes" if verdict == "undecided" else "",
    )  # fmt: skip


def _side(halves: tuple[Effect, Effect]) -> str:
    """Tell on which side of the limit both halves lie; one half below it excludes a finding."""
    sides = [side(half.low, half.high, MAJORITY) for half in halves]
    return "below" if "below" in sides else "undecided" if "undecided" in sides else "above"


def _named(effect: Effect, name: str) -> Effect:
    return replace(effect, what=f"{effect.what}, class '{name}'")


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
    index, rows = int(finding.subject), np.arange(len(predicted_B))
    control = control_of(index, confidences_BN, predicted_B)
    undecided_B = confidences_BN[rows, predicted_B] < MAJORITY
    of_undecided = control_of(index, confidences_BN[undecided_B], predicted_B[undecided_B])
    if any(each is not None and (each.high is None or each.high >= MAJORITY) for each in (control, of_undecided)):
        return None
    return finding if control is None else replace(finding, control=control)


def control_of(index: int, confidences_BN: FloatArray, predicted_B: Indices) -> Effect | None:
    """Measure how often the model gives a class to images of other classes without their objects; None for too few."""
    gives_B = confidences_BN[predicted_B != index, index] >= 0.5
    what = "images of other classes, with their objects removed, that the model gives this class"
    return share_of(gives_B, what) if len(gives_B) >= MIN_IMAGES else None


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


def _tested(values: Values, right_I: Flags, relies_I: Flags) -> dict[int, tuple[Effect, Effect]]:
    """Measure the share of reliant predictions of each class on both halves, where both have enough images."""
    tested = {}
    for index in np.unique(values.predicted_I[right_I]):
        rows_I = right_I & (values.predicted_I == index)
        halves = [relies_I[rows_I & (values.held_out_I == half)] for half in (False, True)]
        if min(map(len, halves)) >= MIN_IMAGES:
            tested[int(index)] = (share_of(halves[0], _RELIES), share_of(halves[1], _RELIES))
    return tested


def _findings(run: Run, values: Values, right_I: Flags, relies_I: Flags, following: list[str]) -> list[Finding]:
    """Report the worst classes; the sentence of the first gives the number of classes concerned."""
    tested = _tested(values, right_I, relies_I)
    bad = {index: halves[1] for index, halves in tested.items() if all((half.low or 0) >= MAJORITY for half in halves)}
    worst = sorted(bad, key=lambda index: (-(bad[index].low or 0), index))[:MAX_CLASSES]
    findings = []
    for rank, index in enumerate(worst):
        rows_I = right_I & (values.predicted_I == index) & values.held_out_I
        outside = _methods_outside(run, values, rows_I, following)
        total = len(bad) if rank == 0 and len(bad) > 1 else 0
        findings.append(_finding(index, class_name(run, index), bad[index], outside, total))
    return findings


def _finding(index: int, name: str, effect: Effect, outside: list[str], classes: int) -> Finding:
    also = f" This holds for {classes} classes in total." if classes else ""
    return Finding(
        "background", str(index), name, "context", "replicated" if len(outside) > 1 else "intervened",
        f"Context reliance: the model predicts '{name}' from what is beside the object. For {percent(effect.value)} of "
        "its correct predictions, the confidence is 0.5 or more with the object removed, and less than 0.5 with the "
        f"object alone.{also}",
        effect,
        "The run scored each image with its boxes removed, and with nothing but its boxes. On both halves of the "
        "images, the 95 % interval of the share lies at or above 50 %. The value is that of the held-out half."
        + (f" Methods that follow the model, with most energy outside: {', '.join(outside)}." if outside else ""),
        "Collect images of this class in other contexts. See the scatter plot of confidence without the object.",
    )  # fmt: skip


def _methods_outside(run: Run, values: Values, rows_I: Flags, following: list[str]) -> list[str]:
    """Name the methods that follow the model and whose mean energy lies mostly outside the box."""
    label = metric_label(run, "energy_in_box")
    if label is None:
        return []
    energies = {method: values.metric(label, method)[rows_I] for method in following}
    return [m for m, inside_I in energies.items() if np.isfinite(inside_I).any() and float(np.nanmean(inside_I)) < 0.5]
