"""The line about constant patches in the table of what was checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.audit.checked import Checked, not_checked, of_changes
from pipeline.audit.findings import MIN_IMAGES, Changed, Effect, Finding
from pipeline.audit.intervals import side
from pipeline.audit.patches import CHANGED, CONTROL, MIN_EXCESS, MIN_PATTERN, Screened

NAME = "Constant patch, such as a watermark"
TOO_FEW = f"fewer than two classes were predicted for {MIN_IMAGES} images of the half that is searched"
_SHARDS = "restore the shards, then camatlas audit RUN"


@dataclass(frozen=True)
class Tried:
    """A suspect that was tested.

    Attributes:
        name: name of its class.
        images: number of images of the class that could be read.
        pattern: shares of common pixels, of the class and of other classes; None with too few images.
        changed: what overwriting changed; None without a constant patch.
    """

    name: str
    images: int
    pattern: tuple[float, float] | None
    changed: Changed | None


def check(screened: Screened, images: int, name: str, tried: Sequence[Tried], found: Sequence[Finding]) -> Checked:
    """Return the line about constant patches, of a run whose suspects could all be tested.

    Args:
        screened: what the maps suggest.
        images: number of images whose maps were screened.
        name: name of the class with the largest excess.
        tried: the suspects, tested.
        found: what was found.
    """
    base = Checked("patch", NAME, "undecided", "context", images)
    changes = [(one.name, one.changed) for one in tried if one.changed is not None]
    if changes:
        return of_changes(base, changes, found, CHANGED, CONTROL)
    known = [(one, one.pattern) for one in tried if one.pattern is not None]
    if known:
        one, pattern = max(known, key=lambda pair: pair[1][0])
        return Checked(
            "patch", NAME, "not found", "context", images,
            Effect(f"variation that the images of '{one.name}' share in the suspected region", pattern[0], None, None,
                   one.images),
            Effect("the same region of other classes", pattern[1], None, None, one.images),
            f"limit {MIN_PATTERN}", f"maps suggest a region in {len(tried)} classes, but its pixels differ from image "
            "to image",
        )  # fmt: skip
    if tried:
        return not_checked("patch", NAME, "context", "the images of the suspected classes could not be read", _SHARDS)
    largest = screened.largest
    if largest is None:
        return not_checked("patch", NAME, "context", TOO_FEW)
    measured = replace(largest, what=largest.what.format(name=name))
    below = side(largest.low, largest.high, MIN_EXCESS) == "below" and largest.images >= MIN_IMAGES
    return Checked(
        "patch", NAME, "not found" if below else "undecided", "context", images, measured, None,
        f"limit {MIN_EXCESS}", f"the maps of {screened.classes} classes suggest no region",
        "" if below else "explain more images of each class",
    )  # fmt: skip
