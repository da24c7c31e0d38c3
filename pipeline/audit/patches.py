"""Constant patches such as watermarks: a region that the maps of one class share, with the same pixels in each image.

Maps of one half of the images suggest the region, or pixels that images of the class share (`shared_pixels`). The model
then tests it on both halves: the region is overwritten
with that of images of other classes and, as a control, so is a region of the same shape elsewhere. It is also pasted
into images of other classes and, as a control, so is the same region of images of other classes.

Legend: B images, N classes, (u, v) the common grid of maps, (H, W) pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pipeline.audit.findings import MIN_IMAGES, Changed, Effect
from pipeline.audit.intervals import difference_of_means
from pipeline.audit.maps import GRID, Maps
from pipeline.audit.patch_regions import elsewhere, enlarged
from pipeline.audit.values import Flags, Place, Values
from pipeline.maps.codec import FloatArray
from pipeline.results.rerun import RunModel

MAX_SUSPECTS = 6
IMAGES_PER_HALF = 32
MIN_EXCESS = 0.15
"""The peak of the excess of a class's mean map over that of the other classes must reach this."""

MIN_PASTED = 0.5
"""Pasting proves a patch alone when, on both halves, the interval of the share of images that turn starts here."""

_MOST_HELD_OUT = 500
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
    """A region that the maps of one predicted class share, or its pixels.

    Attributes:
        predicted: the predicted class.
        region_uv: the cells of the region.
        methods: methods whose own maps show the region; none where pixels suggest it.
    """

    predicted: int
    region_uv: Flags
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Screened:
    """What the maps of the classes suggest.

    Attributes:
        classes: number of predicted classes that are large enough.
        suspects: regions to be tested.
        largest: the largest excess of a class, measured again on the held-out half; None with fewer than two classes.
        of_class: the class with the largest excess, -1 for none.
        few: number of images of each predicted class that is too small to be searched.
    """

    classes: int
    suspects: list[Suspect]
    largest: Effect | None
    of_class: int
    few: Mapping[int, int] = field(default_factory=dict)


def suspects(values: Values, maps: Maps, methods: Sequence[str]) -> list[Suspect]:
    """Find regions where the mean map of one predicted class exceeds that of the others, without the held-out half."""
    return screen(values, maps, methods).suspects


def screen(values: Values, maps: Maps, methods: Sequence[str]) -> Screened:
    """Find suspected regions on one half of the images, and measure the largest excess on the other half."""
    predicted_I = np.where(values.held_out_I, -1, values.predicted_I)
    sizes = {int(index): int((predicted_I == index).sum()) for index in np.unique(values.predicted_I) if index >= 0}
    large = [index for index, size in sizes.items() if size >= MIN_IMAGES]
    few = {index: size for index, size in sizes.items() if size < MIN_IMAGES}
    if len(large) < 2 or not methods:
        return Screened(len(large), [], None, -1, few)
    means = {method: maps.means(method, predicted_I) for method in methods}
    scored, peaks = [], {}
    for predicted in large:
        excesses = {method: _excess(own, predicted, large) for method, own in means.items()}
        excess_uv = np.mean(list(excesses.values()), axis=0)
        peaks[predicted] = excess_uv
        region_uv = _region(excess_uv)
        if region_uv is not None:
            showing = tuple(m for m, own_uv in excesses.items() if own_uv[region_uv].mean() >= MIN_EXCESS / 2)
            scored.append((float(excess_uv[region_uv].mean()), Suspect(predicted, region_uv, showing)))
    scored.sort(key=lambda pair: (-pair[0], pair[1].predicted))
    strongest = max(peaks, key=lambda index: (float(peaks[index].max()), -index))
    largest = _held_out_excess(values, maps, methods, strongest, peaks[strongest])
    return Screened(len(large), [suspect for _, suspect in scored[:MAX_SUSPECTS]], largest, strongest, few)


def _held_out_excess(
    values: Values, maps: Maps, methods: Sequence[str], predicted: int, excess_uv: FloatArray
) -> Effect | None:
    """Measure the excess of a class at its peak on the held-out half, with Welch's interval."""
    mine_I = values.predicted_I == predicted
    groups = [np.flatnonzero(values.held_out_I & chosen_I) for chosen_I in (mine_I, ~mine_I)]
    peak = np.unravel_index(int(excess_uv.argmax()), excess_uv.shape)
    heats = [maps.consensus(methods, rows[:: max(1, -(-len(rows) // _MOST_HELD_OUT))]) for rows in groups]
    at_peak = [heat_Buv[heat_Buv.any((1, 2))][:, peak[0], peak[1]].astype(np.float64) for heat_Buv in heats]
    if min(map(len, at_peak)) < 2:
        return None
    value, low, high = difference_of_means(at_peak[0], at_peak[1])
    what = "largest excess of the mean map of '{name}' over that of other classes"
    return Effect(what, value, max(-1.0, low), min(1.0, high), len(at_peak[0]))


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
    """Result of overwriting the region, and of pasting it.

    Attributes:
        changed: predictions changed by overwriting the region, and by the control.
        pasted: images of other classes that are predicted as the class with the patch pasted in, and by the control.
        carriers: share of the images of the class that carry the patch, from which alone it is pasted; None where no
            pixels tell, so that it is pasted from all of them.
    """

    changed: Changed
    pasted: Changed
    carriers: float | None = None

    @property
    def others(self) -> float:
        """Return the share of images of other classes that are predicted as the class with the patch pasted in."""
        return float(self.pasted.changed_B.mean())

    @property
    def by_pasting(self) -> bool:
        """Tell whether the pasted patch alone proves the effect: on both halves, for most images of other classes."""
        return all(self.pasted.holds(half, MIN_PASTED) for half in (False, True))

    def verdict(self) -> Literal["found", "not found", "undecided"]:
        """Judge both tests: found if one of them shows the effect, not found if both exclude it, else undecided."""
        verdicts = self.changed.verdict(), self.pasted.verdict()
        if verdicts[0] == "found" or self.by_pasting:
            return "found"
        return "not found" if verdicts == ("not found", "not found") else "undecided"


def intervene(
    suspect: Suspect, class_BHWC: FloatArray, held_out_B: Flags, other_BHWC: FloatArray, others_held_out_B: Flags,
    rerun: RunModel, carriers_B: Flags | None = None,
) -> PatchEvidence | None:  # fmt: skip
    """Run the model on modified images; None when there is no constant patch, or when there are too few images.

    Args:
        suspect: the region.
        class_BHWC: images with the suspected prediction, in [0, 1].
        held_out_B: which of them are of the held-out half.
        other_BHWC: images with other predictions, in [0, 1].
        others_held_out_B: which of these are of the held-out half.
        rerun: the model.
        carriers_B: which images of the class have the pixels that it shares in this region; None if it shares next to
            none, so that only variation that the images have in common makes the region constant.
    """
    count = min(len(class_BHWC), len(other_BHWC))
    if count < 2 * MIN_IMAGES:
        return None
    own, others = common_pixels(suspect, class_BHWC, other_BHWC)
    if carriers_B is None and (own < MIN_PATTERN or own < MIN_PATTERN_RATIO * others):
        return None
    region_HW = enlarged(suspect.region_uv, class_BHWC.shape[1:3])
    partner_BHWC = other_BHWC[np.arange(len(class_BHWC)) % len(other_BHWC)]
    donor_BHWC = class_BHWC if carriers_B is None or not carriers_B.any() else class_BHWC[carriers_B]
    donor_BHWC = donor_BHWC[np.arange(len(other_BHWC)) % len(donor_BHWC)]
    control_BHWC = np.roll(other_BHWC, len(other_BHWC) // 2, axis=0)

    def gives_B(into_BHWC: FloatArray, from_BHWC: FloatArray, mask_HW: Flags) -> Flags:
        pixels_BHWC = np.where(mask_HW[None, ..., None], from_BHWC, into_BHWC)
        given_B: Flags = rerun.predicted(pixels_BHWC) == suspect.predicted
        return given_B

    right_B = rerun.predicted(class_BHWC) == suspect.predicted
    changed_B, control_B = (~gives_B(class_BHWC, partner_BHWC, mask) for mask in (region_HW, elsewhere(region_HW)))
    pasted_B, unpasted_B = (gives_B(other_BHWC, pixels_BHWC, region_HW) for pixels_BHWC in (donor_BHWC, control_BHWC))
    return PatchEvidence(
        Changed(changed_B[right_B], control_B[right_B], held_out_B[right_B]),
        Changed(pasted_B, unpasted_B, others_held_out_B),
        None if carriers_B is None else float(carriers_B.mean()),
    )


def common_pixels(suspect: Suspect, class_BHWC: FloatArray, other_BHWC: FloatArray) -> tuple[float, float]:
    """Return the share of the variation within the region that images have in common: of the class, and of others."""
    count = min(len(class_BHWC), len(other_BHWC))
    region_HW = enlarged(suspect.region_uv, class_BHWC.shape[1:3])
    return _pattern(class_BHWC[:count], region_HW), _pattern(other_BHWC[:count], region_HW)


def _pattern(pictures_BHWC: FloatArray, region_HW: Flags) -> float:
    """Return the share of the variation within a region that all images share: var(mean image) / mean(var(image))."""
    inside_BPC = pictures_BHWC[:, region_HW]
    mean_variance = float(inside_BPC.var(axis=1).mean())
    return float(inside_BPC.mean(0).var(axis=0).mean()) / mean_variance if mean_variance > 0 else 0.0
