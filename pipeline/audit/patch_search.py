"""The regions of one class that maps and pixels suggest, and their tests: at most one of each, in this order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.audit.findings import MIN_IMAGES
from pipeline.audit.patch_regions import grown
from pipeline.audit.patches import MAX_REGION, MAX_SUSPECTS, PatchEvidence, Suspect, common_pixels, intervene
from pipeline.audit.shared_pixels import MAX_IN_OTHERS, MAX_SHARED, MIN_CARRIERS, Shared, shared_pixels
from pipeline.audit.values import Flags
from pipeline.maps.codec import FloatArray
from pipeline.results.rerun import RunModel


@dataclass(frozen=True)
class Compared:
    """Images of a class, and images of other classes, (B, H, W, C) in [0, 1].

    Attributes:
        class_BHWC: images with the prediction.
        held_out_B: which of them are of the held-out half.
        other_BHWC: images with other predictions.
        others_held_out_B: which of these are of the held-out half.
    """

    class_BHWC: FloatArray
    held_out_B: Flags
    other_BHWC: FloatArray
    others_held_out_B: Flags

    @property
    def searched(self) -> tuple[FloatArray, FloatArray]:
        """Return the images of the half that is searched: of the class, and of other classes."""
        return self.class_BHWC[~self.held_out_B], self.other_BHWC[~self.others_held_out_B]

    @property
    def enough(self) -> bool:
        """Tell whether a region of the class can be tested."""
        counts = len(self.class_BHWC), len(self.other_BHWC)
        searched = int((~self.held_out_B).sum()), int((~self.others_held_out_B).sum())
        return min(counts) >= 2 * MIN_IMAGES and min(searched) >= MIN_IMAGES


@dataclass(frozen=True)
class Looked:
    """What the pixels of the classes suggest.

    Attributes:
        classes: number of classes whose pixels were compared with those of other classes.
        shared: the pixels that images of each of them share.
        suspects: regions of such pixels to be tested, the surest first; no map suggests them.
        large: share of the image of regions too large to be tested, for each of their classes.
        untested: classes with such a region beyond the number that is tested.
    """

    classes: int = 0
    shared: Mapping[int, Shared] = field(default_factory=dict)
    suspects: Sequence[Suspect] = ()
    large: Mapping[int, float] = field(default_factory=dict)
    untested: Sequence[int] = ()

    def suspect(self, predicted: int) -> Suspect | None:
        """Return the region of a class that its pixels suggest."""
        return next((one for one in self.suspects if one.predicted == predicted), None)


def look(compared: Iterator[tuple[int, Compared]]) -> Looked:
    """Compare the pixels of the searched half of each class with those of other classes."""
    shared, large, scored = dict[int, Shared](), dict[int, float](), list[tuple[float, Suspect]]()
    classes = 0
    for predicted, images in compared:
        classes += 1
        found = shared_pixels(*images.searched)
        regions = found.regions()
        if regions:
            shared[predicted] = found
        scores = ((_score(found, region_uv, images), region_uv) for region_uv in regions)
        score, region_uv = next(((score, region_uv) for score, region_uv in scores if score), (0.0, None))
        if region_uv is not None and region_uv.mean() > MAX_SHARED:
            large[predicted] = float(region_uv.mean())
        elif region_uv is not None:
            scored.append((score, Suspect(predicted, region_uv, ())))
    scored.sort(key=lambda pair: (-pair[0], pair[1].predicted))
    chosen = [suspect for _, suspect in scored]
    untested = [suspect.predicted for suspect in chosen[MAX_SUSPECTS:]]
    return Looked(classes, shared, chosen[:MAX_SUSPECTS], large, untested)


def _score(found: Shared, region_uv: Flags, images: Compared) -> float:
    """Return how many more of the images of a class than of others carry a region, as a share; 0 if it is no patch."""
    own_BHWC, other_BHWC = images.searched
    own_B, others_B = (found.carriers(region_uv, own_BHWC, pixels) for pixels in (own_BHWC, other_BHWC))
    if own_B is None or others_B is None:
        return 0.0
    own, others = float(own_B.mean()), float(others_B.mean())
    return own - others if own >= MIN_CARRIERS and others <= MAX_IN_OTHERS * own else 0.0


@dataclass(frozen=True)
class Trial:
    """A region that was tested.

    Attributes:
        suspect: the region, grown to what is constant.
        pattern: shares of common pixels, of the class and of other classes.
        evidence: what overwriting and pasting changed; None without a constant patch.
    """

    suspect: Suspect
    pattern: tuple[float, float]
    evidence: PatchEvidence | None

    @property
    def rank(self) -> int:
        """Return the rank of what the model said: found, undecided, not found, not asked."""
        return 3 if self.evidence is None else ("found", "undecided", "not found").index(self.evidence.verdict())


def strongest(mapped: Suspect | None, looked: Looked, predicted: int, images: Compared, rerun: RunModel) -> Trial:
    """Test the region that maps suggest and, unless this shows the effect, the one that pixels suggest.

    Args:
        mapped: the region that maps suggest, if they do.
        looked: what the pixels suggest; for this class, if the maps suggest nothing.
        predicted: the class.
        images: its images, and others.
        rerun: the model.
    """
    shared, tried = looked.shared.get(predicted), list[Trial]()
    pixels = looked.suspect(predicted)
    if mapped is not None:
        region_uv = grown(mapped.region_uv, *images.searched, MAX_REGION)
        tried.append(_tested(replace(mapped, region_uv=region_uv), shared, images, rerun))
    if pixels is not None and (not tried or (tried[0].rank and not _same(tried[0].suspect, pixels))):
        tried.append(_tested(pixels, shared, images, rerun))
    return min(tried, key=lambda one: one.rank)


def _tested(suspect: Suspect, shared: Shared | None, images: Compared, rerun: RunModel) -> Trial:
    carriers_B = None
    if shared is not None:
        carriers_B = shared.carriers(suspect.region_uv, images.searched[0], images.class_BHWC)
    evidence = intervene(
        suspect, images.class_BHWC, images.held_out_B, images.other_BHWC, images.others_held_out_B, rerun, carriers_B
    )
    return Trial(suspect, common_pixels(suspect, images.class_BHWC, images.other_BHWC), evidence)


def _same(one: Suspect, other: Suspect) -> bool:
    return bool(np.array_equal(one.region_uv, other.region_uv))
