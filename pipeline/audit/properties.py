"""Image properties associated with a class (brightness, colour, border, size), and a test of colour by intervention.

A property that separates a class from the others is only `associated`. Colour and brightness are tested with the model:
the images are shifted to the mean colour of the others and, as a control, equally far in the opposite direction.

Legend: B images, C colour channels, (H, W) pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.audit.checked import Checked, not_checked, of_changes
from pipeline.audit.findings import MIN_IMAGES, Changed, Effect, Finding, percent
from pipeline.audit.intervals import auc, side
from pipeline.audit.statistics import Indices, Numbers, holm
from pipeline.audit.values import Flags, Place, Values
from pipeline.maps.codec import FloatArray
from pipeline.results.rerun import RunModel

MAX_CLASSES, IMAGES_PER_HALF = 60, 16
MIN_SEPARATION = 0.35
"""|AUC - 1/2| from which a colour is tested by intervention; 1/2 is perfect separation."""

MAX_SUSPECTS = 6
_RGB = 3
COLOURS = ("brightness", "red to green", "yellow to blue", "saturation")
"""Properties that a shift of the mean colour changes."""


@dataclass(frozen=True)
class Association:
    """How well a property separates a class from the others.

    Attributes:
        predicted: the predicted class.
        property: name of the property.
        separation: AUC - 1/2 on all images of the sample; positive when the class has larger values.
        halves: the same for each half of the images of the class.
        p: of the Mann-Whitney test, adjusted for the number of classes and properties (Holm).
        images: number of images of the class.
    """

    predicted: int
    property: str
    separation: float
    halves: tuple[float, float]
    p: float
    images: int


def sample(values: Values) -> list[Place]:
    """Choose images of the most frequently predicted classes, evenly from both halves."""
    classes, counts = np.unique(values.predicted_I, return_counts=True)
    largest = classes[np.argsort(-counts, kind="stable")][:MAX_CLASSES]
    places = []
    for predicted in largest:
        for half in (False, True):
            rows = np.flatnonzero((values.predicted_I == predicted) & (values.held_out_I == half))
            places += [values.places[row] for row in rows[:: max(1, -(-len(rows) // IMAGES_PER_HALF))]]
    return places


def measure(pictures: Iterable[FloatArray], sizes_B2: Numbers) -> dict[str, Numbers]:
    """Measure the properties of images (H, W, C) in [0, 1]; `sizes_B2` are height and width before resizing."""
    rows = [_of(picture_HWC) for picture_HWC in pictures]
    measured = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
    measured["pixels"] = sizes_B2.prod(1)
    measured["aspect"] = sizes_B2[:, 1] / sizes_B2[:, 0]
    return measured


def _of(picture_HWC: FloatArray) -> dict[str, float]:
    grey_HW = picture_HWC.mean(2)
    edge = max(1, min(grey_HW.shape) // 16)
    inside_HW = grey_HW[edge:-edge, edge:-edge]
    border = (float(grey_HW.sum()) - float(inside_HW.sum())) / max(1, grey_HW.size - inside_HW.size)
    return {
        "brightness": float(grey_HW.mean()),
        "contrast": float(grey_HW.std()),
        **(_colours(picture_HWC) if picture_HWC.shape[2] == _RGB else {}),
        "border": border - float(inside_HW.mean()),
    }


def _colours(picture_HW3: FloatArray) -> dict[str, float]:
    """Measure the properties that only RGB images have."""
    red, green, blue = (float(value) for value in picture_HW3.mean((0, 1)))
    return {
        "red to green": red - green,
        "yellow to blue": (red + green) / 2 - blue,
        "saturation": float((picture_HW3.max(2) - picture_HW3.min(2)).mean()),
    }


def associations(measured: Mapping[str, Numbers], predicted_B: Indices, held_out_B: Flags) -> list[Association]:
    """Test every property for every predicted class; returns the strongest associations first."""
    from scipy.stats import mannwhitneyu  # costs time to import

    rows = []
    for predicted in np.unique(predicted_B):
        mine_B = predicted_B == predicted
        if min((mine_B & held_out_B).sum(), (mine_B & ~held_out_B).sum()) < MIN_IMAGES or mine_B.all():
            continue
        for name, values_B in measured.items():
            known_B = np.isfinite(values_B)
            if not known_B.all() or values_B.std() == 0:
                continue
            p = float(mannwhitneyu(values_B[mine_B], values_B[~mine_B]).pvalue)
            halves = tuple(
                _separation(values_B[mine_B & (held_out_B == half)], values_B[~mine_B]) for half in (False, True)
            )
            whole = _separation(values_B[mine_B], values_B[~mine_B])
            rows.append(Association(int(predicted), name, whole, (halves[0], halves[1]), p, int(mine_B.sum())))
    adjusted = holm([row.p for row in rows])
    rows = [
        Association(r.predicted, r.property, r.separation, r.halves, p, r.images)
        for r, p in zip(rows, adjusted, strict=True)
    ]
    return sorted(rows, key=lambda row: (-abs(row.separation), row.predicted, row.property))


def _separation(mine_n: Numbers, others_n: Numbers) -> float:
    """Return AUC - 1/2 of the separation of two groups."""
    from scipy.stats import rankdata  # costs time to import

    ranks_n = rankdata(np.concatenate([mine_n, others_n]))[: len(mine_n)]
    auc = (ranks_n.sum() - len(mine_n) * (len(mine_n) + 1) / 2) / (len(mine_n) * len(others_n))
    return float(auc - 0.5)


def colour_suspects(rows: Sequence[Association]) -> list[Association]:
    """Choose the strongest association with colour or brightness of each class, if both halves show it."""
    strong: dict[int, Association] = {}
    for row in rows:
        consistent = min(abs(half) for half in row.halves) >= MIN_SEPARATION and row.halves[0] * row.halves[1] > 0
        if row.property in COLOURS and row.p < 0.01 and consistent:
            strong.setdefault(row.predicted, row)
    return list(strong.values())[:MAX_SUSPECTS]


def intervene(
    predicted: int, class_BHWC: FloatArray, held_out_B: Flags, mean_C: FloatArray, rerun: RunModel
) -> Changed | None:
    """Shift images to the mean colour of the others and, as a control, in the opposite direction; run the model."""
    right_B = rerun.predicted(class_BHWC) == predicted
    if not right_B.any():
        return None
    shift_B11C = mean_C - class_BHWC.mean((1, 2), keepdims=True)
    edited = [np.clip(class_BHWC + sign * shift_B11C, 0, 1).astype(np.float32) for sign in (1, -1)]
    changed_B, control_B = (rerun.predicted(pixels_BHWC) != predicted for pixels_BHWC in edited)
    return Changed(changed_B[right_B], control_B[right_B], held_out_B[right_B])


_CHANGED = "predictions of '{name}' that change with the mean colour of other images"
_CONTROL = "the same with an equal shift in the opposite direction"
NAME = "Colour or brightness of the whole image"


def finding(association: Association, changed: Changed, name: str) -> Finding | None:
    """Return the finding when both halves show the effect, else None."""
    if changed.verdict() != "found":
        return None
    effect, control = changed.effect(_CHANGED.format(name=name)), changed.control_effect(_CONTROL)
    larger = "larger" if association.separation > 0 else "smaller"
    return Finding(
        "colour", str(association.predicted), name, "properties", "replicated",
        f"The model predicts '{name}' from the colour of the image. With the mean colour shifted to that of other "
        f"images, {percent(effect.value)} of these predictions change (control: {percent(control.value)}).",
        effect,
        f"Images predicted as '{name}' have {larger} values of '{association.property}' than others (AUC "
        f"{0.5 + abs(association.separation):.2f}). Their mean colour was shifted, and the model was run again. The "
        "effect holds on both halves of the images, and its value is that of the held-out half.",
        "Decide whether the colour belongs to the class or to how its images were taken. In the second case, use "
        "colour augmentation in training.",
        control,
    )  # fmt: skip


@dataclass(frozen=True)
class Sampled:
    """The sampled images, with the properties that were measured.

    Attributes:
        measured: values of each property.
        predicted_B, held_out_B: predicted class and half of each image.
    """

    measured: Mapping[str, Numbers]
    predicted_B: Indices
    held_out_B: Flags

    def strongest(self, rows: Sequence[Association]) -> tuple[Association, Effect] | None:
        """Return the strongest colour of one half, and its AUC on the other half; None where nothing was measured."""
        colours = [row for row in rows if row.property in COLOURS]
        if not colours:
            return None
        first = max(colours, key=lambda row: (abs(row.halves[0]), -row.predicted, row.property))
        mine_B = self.predicted_B == first.predicted
        values_B = self.measured[first.property] * (1 if first.halves[0] >= 0 else -1)
        own_n = values_B[mine_B & self.held_out_B]
        what = f"AUC of '{first.property}' for '{{name}}' against other classes"
        return first, Effect(what, *auc(own_n, values_B[~mine_B]), len(own_n))


def check(
    sampled: Sampled, rows: Sequence[Association], names: Mapping[int, str], tried: Sequence[tuple[str, Changed]],
    found: Sequence[Finding],
) -> Checked:  # fmt: skip
    """Return the line about colours, of a run whose suspects could all be tested.

    Args:
        sampled: the sampled images.
        rows: the associations of properties and classes.
        names: name of each class in `rows`.
        tried: the suspected classes, with the predictions that a shift of the colour changed.
        found: what was found.
    """
    base = Checked("colour", NAME, "undecided", "properties", len(sampled.predicted_B))
    if tried:
        return of_changes(base, tried, found, _CHANGED, _CONTROL)
    strongest = sampled.strongest(rows)
    if strongest is None:
        few = f"no sampled class has {MIN_IMAGES} readable images in each half, beside another class"
        return not_checked("colour", NAME, "properties", few)
    association, effect = strongest
    effect = replace(effect, what=effect.what.format(name=names[association.predicted]))
    below = side(effect.low, effect.high, 0.5 + MIN_SEPARATION) == "below"
    return Checked(
        "colour", NAME, "not found" if below else "undecided", "properties", len(sampled.predicted_B), effect, None,
        f"limit {0.5 + MIN_SEPARATION}", "no colour separates a class on both halves",
        "" if below else "explain more images of each class",
    )  # fmt: skip


def to_json(association: Association, name: str) -> dict[str, Any]:
    """Convert an association to plain JSON."""
    return {
        "answer": association.predicted,
        "name": name,
        "property": association.property,
        "auc": 0.5 + association.separation,
        "p": association.p,
        "images": association.images,
    }
