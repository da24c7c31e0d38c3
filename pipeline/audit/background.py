"""Does the answer come from the surroundings? Boxes removed, boxes alone, and energy outside the box.

A right answer relies on the surroundings when the model still gives it a confidence of 0.5 or more without the object,
and less than 0.5 with the object alone. Both were asked of the model during the run (`box_removed_confidence`,
`box_only_confidence`).

A class that the model says of any picture without an object looks the same. So pictures of other classes are emptied,
too, as a control: where the model says the class of many of them, its own surroundings are nothing special.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.audit.findings import ENOUGH, Effect, Finding, percent
from pipeline.audit.statistics import Indices, wilson
from pipeline.audit.tables import asked, class_name, quoted
from pipeline.audit.values import Flags, Values, metric_label
from pipeline.maps.codec import FloatArray
from pipeline.results.query import Run
from pipeline.results.rerun import as_pixels
from pipeline.results.source_images import Original

MOST_POINTS, MOST_CLASSES = 400, 4
MOST_ANSWERS = 0.5
"""Most right answers of a class must rely on the surroundings."""

_CLASSES = """
SELECT class, count(*) AS images, avg(removed) AS removed, avg(alone) AS alone,
  avg((removed >= 0.5 AND alone < 0.5)::INT) AS relies
FROM (SELECT predicted AS class, any_value({removed}) AS removed,
    any_value({alone}) AS alone FROM explanations
  WHERE predicted = target AND predicted = coalesce(label, predicted) GROUP BY shard, image_key, predicted)
WHERE removed IS NOT NULL AND alone IS NOT NULL GROUP BY class ORDER BY images < 20, relies DESC, images DESC, class
"""


def background(run: Run, values: Values, sane_methods: list[str]) -> tuple[dict[str, Any], list[Finding]]:
    """Collect the section, and the finding when classes rely on their surroundings."""
    labels = _labels(run)
    if len(labels) < 2:
        return {"asked": False, "classes": {"rows": [], "sql": ""}, "points": [], "outside": []}, []
    table = asked(run, _CLASSES.format(**{name: quoted(label) for name, label in labels.items()}))
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
    return section, _findings(run, values, right_I, relies_I, sane_methods)


def emptied(picture: Original, fill_C: Sequence[float]) -> FloatArray:
    """Overwrite the objects of a picture with one colour, (H, W, 3) in [0, 1]."""
    pixels_HWC = as_pixels(picture).copy()
    for x0, y0, x1, y1 in picture.boxes_xyxy or ():
        pixels_HWC[max(0, math.floor(y0)) : math.ceil(y1), max(0, math.floor(x0)) : math.ceil(x1)] = fill_C
    return pixels_HWC


def apart_from_others(found: Finding, confidences_BN: FloatArray, answers_B: Indices) -> Finding | None:
    """Hold a finding against the control; None where the model says the class of others' emptied pictures, too.

    Args:
        found: a finding of `background`.
        confidences_BN: what the model says of emptied pictures.
        answers_B: what it says of the pictures as they are.
    """
    said_B = confidences_BN[answers_B != int(found.subject), int(found.subject)] >= 0.5
    if len(said_B) < ENOUGH:
        return found
    _, high = wilson(int(said_B.sum()), len(said_B))
    if high is None or high >= MOST_ANSWERS:
        return None
    control = (
        f" Of {len(said_B)} emptied pictures of other classes the model says it in {percent(float(said_B.mean()))}."
    )
    return replace(found, proof=found.proof + control)


def _labels(run: Run) -> dict[str, str]:
    """Labels of the two metrics within the run."""
    wanted = {"box_removed_confidence": "removed", "box_only_confidence": "alone"}
    specs = run.manifest.identity.metrics.items()
    return {wanted[str(fields["name"])]: label for label, fields in specs if fields["name"] in wanted}


def _points(removed_I: Any, alone_I: Any, right_I: Flags) -> list[dict[str, float]]:  # noqa: ANN401
    rows = np.flatnonzero(right_I)
    rows = rows[:: max(1, -(-len(rows) // MOST_POINTS))]
    return [{"removed": float(removed_I[row]), "alone": float(alone_I[row])} for row in rows]


def _outside(run: Run, values: Values) -> list[dict[str, Any]]:
    """Mean share of each method's energy outside the box."""
    label = metric_label(run, "energy_in_box")
    if label is None:
        return []
    found = []
    for method in run.manifest.identity.methods:
        outside_I = 1 - values.metric(label, method)
        known_I = outside_I[np.isfinite(outside_I)]
        found.append(
            {"method": method, "images": len(known_I), "outside": float(known_I.mean()) if len(known_I) else None}
        )
    return found


def _findings(run: Run, values: Values, right_I: Flags, relies_I: Flags, sane_methods: list[str]) -> list[Finding]:
    """State the worst classes; the first finding tells how many there are."""
    bad: dict[int, Effect] = {}
    for index in np.unique(values.predicted_I[right_I]):
        rows_I = right_I & (values.predicted_I == index)
        first, second = (_effect(relies_I[rows_I & (values.held_out_I == half)]) for half in (False, True))
        if first and second and min(first.low, second.low) >= MOST_ANSWERS:
            bad[int(index)] = second
    worst = sorted(bad, key=lambda index: (-bad[index].low, index))[:MOST_CLASSES]
    found = []
    for place, index in enumerate(worst):
        rows_I = right_I & (values.predicted_I == index) & values.held_out_I
        outside = _methods_outside(run, values, rows_I, sane_methods)
        more = len(bad) if place == 0 and len(bad) > 1 else 0
        found.append(_finding(index, class_name(run, index), bad[index], outside, more))
    return found


def _finding(index: int, name: str, effect: Effect, outside: list[str], classes: int) -> Finding:
    also = f" So it is for {classes} classes." if classes else ""
    return Finding(
        "background", str(index), name, "background", "replicated" if len(outside) > 1 else "intervened",
        f"The surroundings alone make the model say '{name}': in {percent(effect.value)} of its right answers they "
        f"suffice, and the object alone does not.{also}",
        effect,
        "Boxes were removed, and kept alone, during the run; both halves of the images show it"
        + (f"; {', '.join(outside)} put most of their energy outside the box." if outside else "."),
        "Collect images of this class in other surroundings, and look at the scatter of box-removed confidence.",
    )  # fmt: skip


def _effect(relies_I: Flags) -> Effect | None:
    if len(relies_I) < ENOUGH:
        return None
    low, high = wilson(int(relies_I.sum()), len(relies_I))
    what = "right answers that rely on the surroundings"
    return Effect(what, float(relies_I.mean()), low or 0.0, high or 0.0, len(relies_I))


def _methods_outside(run: Run, values: Values, rows_I: Flags, sane_methods: list[str]) -> list[str]:
    """Methods that follow the model and put most of their energy outside the box."""
    label = metric_label(run, "energy_in_box")
    if label is None:
        return []
    energies = {method: values.metric(label, method)[rows_I] for method in sane_methods}
    return [m for m, found in energies.items() if np.isfinite(found).any() and float(np.nanmean(found)) < 0.5]
