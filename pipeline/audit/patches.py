"""Constant patches such as watermarks: a region that the maps of one class share, with the same pixels in each image.

Maps of one half of the images suggest the region. The model then tests it on both halves: the region is overwritten
with that of images of other classes and, as a control, so is a region of the same shape elsewhere.

Legend: B images, N classes, (u, v) the common grid of maps, (H, W) pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audit.findings import MIN_IMAGES, Changed, Finding, percent
from pipeline.audit.maps import GRID, Maps
from pipeline.audit.values import Flags, Place, Values
from pipeline.maps.codec import FloatArray
from pipeline.results.rerun import RunModel

MAX_SUSPECTS = 6
IMAGES_PER_HALF = 32
MIN_EXCESS = 0.15
"""The peak of the excess of a class's mean map over that of the other classes must reach this."""

MAX_REGION = 0.3
"""Share of the image; a larger region is not treated as a patch."""

PEAK_SHARES = (0.5, 0.6, 0.7, 0.8)
"""Thresholds of a region as shares of the peak; the lowest that gives a region of at most MAX_REGION is used."""

MIN_PATTERN = 0.2
"""Share of the variation within the region that the images of the class must have in common..."""

MIN_PATTERN_RATIO = 2.5
"""...and the factor by which it must exceed the share in as many images of other classes."""


@dataclass(frozen=True)
class Suspect:
    """A region that the maps of one predicted class share.

    Attributes:
        predicted: the predicted class.
        region_uv: the cells of the region.
        methods: methods whose own maps show the region.
    """

    predicted: int
    region_uv: Flags
    methods: tuple[str, ...]


def suspects(values: Values, maps: Maps, methods: Sequence[str]) -> list[Suspect]:
    """Find regions where the mean map of one predicted class exceeds that of the others, without the held-out half."""
    predicted_I = np.where(values.held_out_I, -1, values.predicted_I)
    classes, sizes = np.unique(predicted_I[predicted_I >= 0], return_counts=True)
    large = [int(index) for index, size in zip(classes, sizes, strict=True) if size >= MIN_IMAGES]
    if len(large) < 2 or not methods:
        return []
    means = {method: maps.means(method, predicted_I) for method in methods}
    scored = []
    for predicted in large:
        excesses = {method: _excess(own, predicted, large) for method, own in means.items()}
        excess_uv = np.mean(list(excesses.values()), axis=0)
        region_uv = _region(excess_uv)
        if region_uv is not None:
            showing = tuple(m for m, own_uv in excesses.items() if own_uv[region_uv].mean() >= MIN_EXCESS / 2)
            scored.append((float(excess_uv[region_uv].mean()), Suspect(predicted, region_uv, showing)))
    scored.sort(key=lambda pair: (-pair[0], pair[1].predicted))
    return [suspect for _, suspect in scored[:MAX_SUSPECTS]]


def _excess(means: Mapping[int, FloatArray], predicted: int, large: Sequence[int]) -> FloatArray:
    others = [means[index] for index in large if index != predicted and index in means]
    if predicted not in means or not others:
        return np.zeros((GRID, GRID), np.float32)
    excess_uv: FloatArray = means[predicted] - np.mean(others, axis=0)
    return excess_uv


def _region(excess_uv: FloatArray) -> Flags | None:
    """Return the cells connected to the peak above a threshold, dilated by one cell; None when too large or weak."""
    from scipy import ndimage  # costs time to import

    peak = np.unravel_index(int(excess_uv.argmax()), excess_uv.shape)
    if excess_uv[peak] < MIN_EXCESS:
        return None
    for share in PEAK_SHARES:
        parts_uv, _ = ndimage.label(excess_uv >= share * excess_uv[peak], structure=np.ones((3, 3)))
        region_uv: Flags = ndimage.binary_dilation(parts_uv == parts_uv[peak])
        if region_uv.mean() <= MAX_REGION:
            return region_uv
    return None


def sample(values: Values, suspect: Suspect) -> list[Place]:
    """Choose images of the suspected class from both halves, evenly spaced in the order of their names."""
    places = []
    for half in (False, True):
        rows = np.flatnonzero((values.predicted_I == suspect.predicted) & (values.held_out_I == half))
        places += [values.places[row] for row in rows[:: max(1, -(-len(rows) // IMAGES_PER_HALF))]]
    return places


@dataclass(frozen=True)
class PatchEvidence:
    """Result of overwriting the region.

    Attributes:
        changed: predictions changed by overwriting the region, and by the control.
        others: share of images of other classes that are predicted as the class with the patch pasted in.
    """

    changed: Changed
    others: float


def intervene(
    suspect: Suspect, class_BHWC: FloatArray, held_out_B: Flags, other_BHWC: FloatArray, rerun: RunModel
) -> PatchEvidence | None:
    """Run the model on modified images; None when there is no constant patch, or when there are too few images.

    Args:
        suspect: the region.
        class_BHWC: images with the suspected prediction, in [0, 1].
        held_out_B: which of them are of the held-out half.
        other_BHWC: images with other predictions, in [0, 1].
        rerun: the model.
    """
    count = min(len(class_BHWC), len(other_BHWC))
    if count < 2 * MIN_IMAGES:
        return None
    region_HW = _enlarged(suspect.region_uv, class_BHWC.shape[1:3])
    own, others = _pattern(class_BHWC[:count], region_HW), _pattern(other_BHWC[:count], region_HW)
    if own < MIN_PATTERN or own < MIN_PATTERN_RATIO * others:
        return None
    elsewhere_HW = _elsewhere(region_HW)
    partner_BHWC = other_BHWC[np.arange(len(class_BHWC)) % len(other_BHWC)]
    right_B = rerun.predicted(class_BHWC) == suspect.predicted
    edited = [np.where(mask[None, ..., None], partner_BHWC, class_BHWC) for mask in (region_HW, elsewhere_HW)]
    changed_B, control_B = (rerun.predicted(pixels_BHWC) != suspect.predicted for pixels_BHWC in edited)
    donor_BHWC = class_BHWC[np.arange(len(other_BHWC)) % len(class_BHWC)]
    pasted_BHWC = np.where(region_HW[None, ..., None], donor_BHWC, other_BHWC)
    turned_B = rerun.predicted(pasted_BHWC) == suspect.predicted
    return PatchEvidence(Changed(changed_B[right_B], control_B[right_B], held_out_B[right_B]), float(turned_B.mean()))


def finding(suspect: Suspect, evidence: PatchEvidence, name: str) -> Finding | None:
    """Return the finding when both halves show the effect, else None."""
    changed = evidence.changed
    if not (changed.holds(False) and changed.holds(True)):
        return None
    effect = changed.effect("predictions that change without the patch")
    where = _where(suspect.region_uv)
    return Finding(
        "watermark", str(suspect.predicted), name, "background",
        "replicated" if len(suspect.methods) > 1 else "intervened",
        f"A constant patch {where} makes the model predict '{name}': with the patch overwritten, "
        f"{percent(effect.value)} of these predictions change (control, an equal area elsewhere: "
        f"{percent(changed.control_share())}). With the patch pasted in, the model predicts '{name}' for "
        f"{percent(evidence.others)} of the sampled images of other classes.",
        effect,
        f"The region was found in the mean maps of {', '.join(suspect.methods)} on one half of the images. It was then "
        "overwritten with the same region of images of other classes, and the model was run again. The effect holds on "
        "both halves, and its value is that of the held-out half.",
        "Look for a watermark, a frame or a scanner mark in this region. Crop it, or add training images from other "
        "sources.",
    )  # fmt: skip


def _pattern(pictures_BHWC: FloatArray, region_HW: Flags) -> float:
    """Return the share of the variation within a region that all images share: var(mean image) / mean(var(image))."""
    inside_BPC = pictures_BHWC[:, region_HW]
    mean_variance = float(inside_BPC.var(axis=1).mean())
    return float(inside_BPC.mean(0).var(axis=0).mean()) / mean_variance if mean_variance > 0 else 0.0


def _enlarged(region_uv: Flags, size: tuple[int, ...]) -> Flags:
    rows, columns = (np.arange(side) * GRID // side for side in size)
    region_HW: Flags = region_uv[rows[:, None], columns[None, :]]
    return region_HW


def _elsewhere(region_HW: Flags) -> Flags:
    """Return the region mirrored or shifted by half the image, whichever overlaps the original least."""
    height, width = region_HW.shape
    mirrored = [region_HW[::-1], region_HW[:, ::-1], region_HW[::-1, ::-1]]
    moved = [*mirrored, np.roll(region_HW, (height // 2, width // 2), (0, 1))]
    return min(moved, key=lambda mask: int((mask & region_HW).sum()))


def _where(region_uv: Flags) -> str:
    """Describe the position of a region in words."""
    rows, columns = (np.flatnonzero(region_uv.any(axis)).mean() / (GRID - 1) for axis in (1, 0))
    vertical = "at the top" if rows < 1 / 3 else "at the bottom" if rows > 2 / 3 else "in the middle"
    across = " left" if columns < 1 / 3 else " right" if columns > 2 / 3 else ""
    return vertical + across
