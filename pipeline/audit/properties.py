"""Plain properties of the images that go with a class: brightness, colour, border, size; and whether colour decides.

A property that tells a class from the others is `associated`, no more. Of colour and brightness the model is asked:
its images are moved to the average colour of the others, and, as a control, as far the other way.

Legend: B images, C colours, (H, W) pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.audit.findings import ENOUGH, Changed, Finding, percent
from pipeline.audit.statistics import Indices, Numbers, holm
from pipeline.audit.values import Flags, Place, Values
from pipeline.maps.codec import FloatArray
from pipeline.results.rerun import RunModel

MOST_CLASSES, IMAGES_PER_HALF = 60, 16
LEAST_SEPARATION = 0.35
"""|AUC - 1/2| from which a property is worth an intervention; 1/2 tells a class perfectly."""

MOST_SUSPECTS = 6
COLOURS = ("brightness", "red to green", "yellow to blue", "saturation")
"""Properties that moving the mean colour changes."""


@dataclass(frozen=True)
class Association:
    """How well a property tells a class from the others.

    Attributes:
        answer: the predicted class.
        property: its name.
        separation: AUC - 1/2 on all images of the sample; positive: the class has more of it.
        halves: the same on each half.
        p: Mann-Whitney's, adjusted for the number of classes and properties (Holm).
        images: of the class.
    """

    answer: int
    property: str
    separation: float
    halves: tuple[float, float]
    p: float
    images: int


def sample(values: Values) -> list[Place]:
    """Draw images of the most frequent answers, evenly from both halves."""
    answers, counts = np.unique(values.predicted_I, return_counts=True)
    largest = answers[np.argsort(-counts, kind="stable")][:MOST_CLASSES]
    places = []
    for answer in largest:
        for half in (False, True):
            rows = np.flatnonzero((values.predicted_I == answer) & (values.held_out_I == half))
            places += [values.places[row] for row in rows[:: max(1, -(-len(rows) // IMAGES_PER_HALF))]]
    return places


def measured(pictures: Iterable[FloatArray], sizes_B2: Numbers) -> dict[str, Numbers]:
    """Measure each picture (H, W, C) in [0, 1]; `sizes_B2` are height and width before resizing."""
    rows = [_of(picture_HWC) for picture_HWC in pictures]
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
    found["pixels"] = sizes_B2.prod(1)
    found["aspect"] = sizes_B2[:, 1] / sizes_B2[:, 0]
    return found


def _of(picture_HWC: FloatArray) -> dict[str, float]:
    red, green, blue = (float(value) for value in picture_HWC.mean((0, 1)))
    grey_HW = picture_HWC.mean(2)
    edge = max(1, min(grey_HW.shape) // 16)
    inside_HW = grey_HW[edge:-edge, edge:-edge]
    border = (float(grey_HW.sum()) - float(inside_HW.sum())) / max(1, grey_HW.size - inside_HW.size)
    return {
        "brightness": float(grey_HW.mean()),
        "contrast": float(grey_HW.std()),
        "red to green": red - green,
        "yellow to blue": (red + green) / 2 - blue,
        "saturation": float((picture_HWC.max(2) - picture_HWC.min(2)).mean()),
        "border": border - float(inside_HW.mean()),
    }


def associations(found: Mapping[str, Numbers], answers_B: Indices, held_out_B: Flags) -> list[Association]:
    """Test every property for every answer, the strongest first."""
    from scipy.stats import mannwhitneyu  # costs time to import

    rows = []
    for answer in np.unique(answers_B):
        mine_B = answers_B == answer
        if min((mine_B & held_out_B).sum(), (mine_B & ~held_out_B).sum()) < ENOUGH or mine_B.all():
            continue
        for name, values_B in found.items():
            known_B = np.isfinite(values_B)
            if not known_B.all() or values_B.std() == 0:
                continue
            p = float(mannwhitneyu(values_B[mine_B], values_B[~mine_B]).pvalue)
            halves = tuple(
                _separation(values_B[mine_B & (held_out_B == half)], values_B[~mine_B]) for half in (False, True)
            )
            whole = _separation(values_B[mine_B], values_B[~mine_B])
            rows.append(Association(int(answer), name, whole, (halves[0], halves[1]), p, int(mine_B.sum())))
    adjusted = holm([row.p for row in rows])
    rows = [
        Association(r.answer, r.property, r.separation, r.halves, p, r.images)
        for r, p in zip(rows, adjusted, strict=True)
    ]
    return sorted(rows, key=lambda row: (-abs(row.separation), row.answer, row.property))


def _separation(mine_n: Numbers, others_n: Numbers) -> float:
    """AUC - 1/2 of telling one group from the other."""
    from scipy.stats import rankdata  # costs time to import

    ranks_n = rankdata(np.concatenate([mine_n, others_n]))[: len(mine_n)]
    auc = (ranks_n.sum() - len(mine_n) * (len(mine_n) + 1) / 2) / (len(mine_n) * len(others_n))
    return float(auc - 0.5)


def colour_suspects(found: Sequence[Association]) -> list[Association]:
    """Associations with colour or brightness that both halves show; one an answer, the strongest."""
    strong: dict[int, Association] = {}
    for row in found:
        alike = min(abs(half) for half in row.halves) >= LEAST_SEPARATION and row.halves[0] * row.halves[1] > 0
        if row.property in COLOURS and row.p < 0.01 and alike:
            strong.setdefault(row.answer, row)
    return list(strong.values())[:MOST_SUSPECTS]


def tried(answer: int, own_BHWC: FloatArray, held_out_B: Flags, mean_C: FloatArray, rerun: RunModel) -> Changed | None:
    """Move pictures to the others' mean colour, and as far the other way, and see whose answers change."""
    right_B = rerun.confidences(own_BHWC).argmax(1) == answer
    if not right_B.any():
        return None
    shift_B11C = mean_C - own_BHWC.mean((1, 2), keepdims=True)
    asked = [np.clip(own_BHWC + sign * shift_B11C, 0, 1).astype(np.float32) for sign in (1, -1)]
    changed_B, control_B = (rerun.confidences(pixels_BHWC).argmax(1) != answer for pixels_BHWC in asked)
    return Changed(changed_B[right_B], control_B[right_B], held_out_B[right_B])


def finding(association: Association, changed: Changed, name: str) -> Finding | None:
    """State it, when both halves show the effect."""
    if not (changed.holds(False) and changed.holds(True)):
        return None
    effect = changed.effect("answers that change with the mean colour")
    more = "more" if association.separation > 0 else "less"
    return Finding(
        "colour", str(association.answer), name, "background", "replicated",
        f"The model knows '{name}' by its colour: moved to the average colour of other images, "
        f"{percent(effect.value)} of its answers change "
        f"({percent(changed.control_share())} when moved as far the other way).",
        effect,
        f"Images of '{name}' have {more} of '{association.property}' than others (AUC "
        f"{0.5 + abs(association.separation):.2f}); their mean colour was changed, and the model asked again.",
        "Ask whether this colour belongs to the class or to how its images were taken; augment colours in training.",
    )  # fmt: skip


def to_json(association: Association, name: str) -> dict[str, Any]:
    """Write it as plain JSON."""
    return {
        "answer": association.answer,
        "name": name,
        "property": association.property,
        "auc": 0.5 + association.separation,
        "p": association.p,
        "images": association.images,
    }
