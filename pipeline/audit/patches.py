"""A constant patch, such as a watermark: a region that one class's maps share, with the same pixels in every image.

Suspected on one half of the images by their maps, proved on both by the model: the region is overwritten with that of
images of other classes, and, as a control, the same is done to a region of the same shape elsewhere.

Legend: B images, N classes, (u, v) the common grid of maps, (H, W) pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.audit.findings import ENOUGH, Changed, Finding, percent
from pipeline.audit.maps import GRID, Maps
from pipeline.audit.values import Flags, Place, Values
from pipeline.maps.codec import FloatArray
from pipeline.results.rerun import RunModel

MOST_SUSPECTS = 6
IMAGES_PER_HALF = 32
LEAST_EXCESS = 0.15
"""The class's mean map must exceed that of the others by so much somewhere."""

LARGEST_REGION = 0.3
"""Share of the image; a larger region is no patch."""

PEAK_SHARES = (0.5, 0.6, 0.7, 0.8)
"""A region takes in what reaches so much of its peak: the least share that gives a patch."""

LEAST_PATTERN = 0.2
"""A patch is there when so much of the variation within the region stays in the mean of the class's images..."""

PATTERN_RATIO = 2.5
"""...and so many times more than in as many images of other classes."""


@dataclass(frozen=True)
class Suspect:
    """A region that the maps of one answer share.

    Attributes:
        answer: the predicted class.
        region_uv: the cells.
        methods: those whose own maps show it.
    """

    answer: int
    region_uv: Flags
    methods: tuple[str, ...]


def suspects(values: Values, maps: Maps, methods: Sequence[str]) -> list[Suspect]:
    """Name regions where the mean map of one answer exceeds that of the others; the held-out half is not looked at."""
    answers_I = np.where(values.held_out_I, -1, values.predicted_I)
    classes, sizes = np.unique(answers_I[answers_I >= 0], return_counts=True)
    large = [int(index) for index, size in zip(classes, sizes, strict=True) if size >= ENOUGH]
    if len(large) < 2 or not methods:
        return []
    means = {method: maps.means(method, answers_I) for method in methods}
    found = []
    for answer in large:
        excesses = {method: _excess(own, answer, large) for method, own in means.items()}
        excess_uv = np.mean(list(excesses.values()), axis=0)
        region_uv = _region(excess_uv)
        if region_uv is not None:
            showing = tuple(m for m, own_uv in excesses.items() if own_uv[region_uv].mean() >= LEAST_EXCESS / 2)
            found.append((float(excess_uv[region_uv].mean()), Suspect(answer, region_uv, showing)))
    found.sort(key=lambda pair: (-pair[0], pair[1].answer))
    return [suspect for _, suspect in found[:MOST_SUSPECTS]]


def _excess(means: Mapping[int, FloatArray], answer: int, large: Sequence[int]) -> FloatArray:
    others = [means[index] for index in large if index != answer and index in means]
    if answer not in means or not others:
        return np.zeros((GRID, GRID), np.float32)
    excess_uv: FloatArray = means[answer] - np.mean(others, axis=0)
    return excess_uv


def _region(excess_uv: FloatArray) -> Flags | None:
    """The connected cells that reach half of the peak, or more where that is no patch, and one cell around them."""
    from scipy import ndimage  # costs time to import

    peak = np.unravel_index(int(excess_uv.argmax()), excess_uv.shape)
    if excess_uv[peak] < LEAST_EXCESS:
        return None
    for share in PEAK_SHARES:
        parts_uv, _ = ndimage.label(excess_uv >= share * excess_uv[peak], structure=np.ones((3, 3)))
        region_uv: Flags = ndimage.binary_dilation(parts_uv == parts_uv[peak])
        if region_uv.mean() <= LARGEST_REGION:
            return region_uv
    return None


def wanted(values: Values, suspect: Suspect) -> list[Place]:
    """Draw images of the suspect's answer from both halves; places are sorted by name, so every so-manyth is fair."""
    places = []
    for half in (False, True):
        rows = np.flatnonzero((values.predicted_I == suspect.answer) & (values.held_out_I == half))
        places += [values.places[row] for row in rows[:: max(1, -(-len(rows) // IMAGES_PER_HALF))]]
    return places


@dataclass(frozen=True)
class PatchEvidence:
    """What the model said when the region was overwritten.

    Attributes:
        changed: whose answers changed, and whose by the control.
        others: share of images of other classes that turn to the answer when given the patch.
    """

    changed: Changed
    others: float


def tried(
    suspect: Suspect, own_BHWC: FloatArray, held_out_B: Flags, other_BHWC: FloatArray, rerun: RunModel
) -> PatchEvidence | None:
    """Ask the model; None when the region is no constant patch, or there is nothing to overwrite it with.

    Args:
        suspect: the region.
        own_BHWC: pictures with the suspect's answer, in [0, 1].
        held_out_B: which of them did not raise the suspicion.
        other_BHWC: pictures with other answers.
        rerun: the model.
    """
    count = min(len(own_BHWC), len(other_BHWC))
    if count < 2 * ENOUGH:
        return None
    region_HW = _enlarged(suspect.region_uv, own_BHWC.shape[1:3])
    mine, theirs = _pattern(own_BHWC[:count], region_HW), _pattern(other_BHWC[:count], region_HW)
    if mine < LEAST_PATTERN or mine < PATTERN_RATIO * theirs:
        return None
    elsewhere_HW = _elsewhere(region_HW)
    partner_BHWC = other_BHWC[np.arange(len(own_BHWC)) % len(other_BHWC)]
    right_B = rerun.confidences(own_BHWC).argmax(1) == suspect.answer
    asked = [np.where(mask[None, ..., None], partner_BHWC, own_BHWC) for mask in (region_HW, elsewhere_HW)]
    changed_B, control_B = (rerun.confidences(pixels_BHWC).argmax(1) != suspect.answer for pixels_BHWC in asked)
    given_BHWC = np.where(region_HW[None, ..., None], own_BHWC[np.arange(len(other_BHWC)) % len(own_BHWC)], other_BHWC)
    turned_B = rerun.confidences(given_BHWC).argmax(1) == suspect.answer
    return PatchEvidence(Changed(changed_B[right_B], control_B[right_B], held_out_B[right_B]), float(turned_B.mean()))


def finding(suspect: Suspect, evidence: PatchEvidence, name: str) -> Finding | None:
    """State it, when both halves show the effect."""
    changed = evidence.changed
    if not (changed.holds(False) and changed.holds(True)):
        return None
    effect = changed.effect("answers that change without the patch")
    where = _where(suspect.region_uv)
    return Finding(
        "watermark", str(suspect.answer), name, "background",
        "replicated" if len(suspect.methods) > 1 else "intervened",
        f"A constant patch {where} makes the model say '{name}': without it {percent(effect.value)} of these answers "
        f"change ({percent(changed.control_share())} when as much is overwritten elsewhere), and "
        f"{percent(evidence.others)} of other images turn to '{name}' when they get it.",
        effect,
        f"The region was found in the mean maps of {', '.join(suspect.methods)} on one half of the images; it was then "
        "overwritten with that of images of other classes, and the model asked again.",
        "Look for a watermark, a frame or a tool mark there; crop it or train on images of other sources.",
    )  # fmt: skip


def _pattern(pictures_BHWC: FloatArray, region_HW: Flags) -> float:
    """Share of the variation within a region that is the same in all pictures: var(mean picture) / mean var."""
    inside_BPC = pictures_BHWC[:, region_HW]
    own = float(inside_BPC.var(axis=1).mean())
    return float(inside_BPC.mean(0).var(axis=0).mean()) / own if own > 0 else 0.0


def _enlarged(region_uv: Flags, size: tuple[int, ...]) -> Flags:
    rows, columns = (np.arange(side) * GRID // side for side in size)
    region_HW: Flags = region_uv[rows[:, None], columns[None, :]]
    return region_HW


def _elsewhere(region_HW: Flags) -> Flags:
    """The same shape where it overlaps the region least: mirrored, or moved by half the image."""
    height, width = region_HW.shape
    mirrored = [region_HW[::-1], region_HW[:, ::-1], region_HW[::-1, ::-1]]
    moved = [*mirrored, np.roll(region_HW, (height // 2, width // 2), (0, 1))]
    return min(moved, key=lambda mask: int((mask & region_HW).sum()))


def _where(region_uv: Flags) -> str:
    """Say in words where a region lies."""
    rows, columns = (np.flatnonzero(region_uv.any(axis)).mean() / (GRID - 1) for axis in (1, 0))
    vertical = "at the top" if rows < 1 / 3 else "at the bottom" if rows > 2 / 3 else "in the middle"
    across = " left" if columns < 1 / 3 else " right" if columns > 2 / 3 else ""
    return vertical + across
