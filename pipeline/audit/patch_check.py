"""The line about constant patches in the table of what was checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.audit.checked import Checked, counted, not_checked
from pipeline.audit.findings import MIN_IMAGES, Effect, percent
from pipeline.audit.intervals import side
from pipeline.audit.patch_finding import measured
from pipeline.audit.patches import MAX_SUSPECTS, MIN_EXCESS, MIN_PATTERN, MIN_PATTERN_RATIO, PatchEvidence, Screened
from pipeline.audit.shared_pixels import MAX_SHARED, MIN_CARRIERS

NAME = "Constant patch, such as a watermark"
TOO_FEW = f"fewer than two classes were predicted for {MIN_IMAGES} images of the half that is searched"
_NO_METHOD = "no method of the run has maps that may suggest a region"
_SHARDS = "restore the shards, then camatlas audit RUN"
_ORDER = ("found", "undecided", "not found")
_MORE = "explain more images of each class"
_GALLERY = "see in the gallery what these images share"
_NO_PIXELS = f"pixels were not compared: no class has {2 * MIN_IMAGES} readable images, {MIN_IMAGES} of them searched"
_MOST_NAMED = 5
_EXCLUDED = (
    f"This excludes a patch with the same pixels in the same place in at least {percent(MIN_CARRIERS)} of the images "
    "of a class, and in far fewer of other classes. One that moves is not looked for, and a transparent one, or one of "
    "a few pixels, only where maps suggest it"
)


@dataclass(frozen=True)
class Pixels:
    """What the comparison of the pixels of classes says, beside the regions that were tested.

    Attributes:
        classes: number of classes that were compared.
        large: share of the image of regions too large to be tested, by the name of their class.
        untested: names of classes beyond the number that is tested.
    """

    classes: int = 0
    large: Mapping[str, float] = field(default_factory=dict)
    untested: Sequence[str] = ()


@dataclass(frozen=True)
class Tried:
    """A suspect that was tested.

    Attributes:
        name: name of its class.
        images: number of images of the class that could be read.
        others: number of images of other classes that it is compared with.
        pattern: shares of common pixels, of the class and of other classes; None with too few images.
        evidence: what overwriting and pasting changed; None without a constant patch.
    """

    name: str
    images: int
    others: int
    pattern: tuple[float, float] | None
    evidence: PatchEvidence | None

    @property
    def closeness(self) -> float:
        """Return how near the common pixels are to those of a patch, which has at least 1; -1 if it is not known."""
        if self.pattern is None:
            return -1.0
        own, others = self.pattern
        return min(own / MIN_PATTERN, own / max(MIN_PATTERN_RATIO * others, 1e-9))


def check(
    screened: Screened, images: int, name: str, tried: Sequence[Tried], few: Mapping[str, int], pixels: Pixels
) -> Checked:  # fmt: skip
    """Return the line about constant patches, of a run whose model could be run.

    Args:
        screened: what the maps suggest.
        images: number of images whose maps were screened.
        name: name of the class with the largest excess.
        tried: the suspects, tested.
        few: number of images of each predicted class that is too small to be searched.
        pixels: what the pixels of the classes say.
    """
    if screened.largest is None and not tried:
        return not_checked("patch", NAME, "context", TOO_FEW if screened.classes < 2 else _NO_METHOD)
    if tried and not any(min(one.images, one.others) for one in tried):
        return not_checked("patch", NAME, "context", "the images of the suspected classes could not be read", _SHARDS)
    line = _line(screened, images, name, tried, pixels)
    missing, left = _missing([one for one in tried if one.pattern is None], few), _left(pixels)
    if line.verdict == "found" or not missing + left:
        return line
    why = "; ".join([*[line.why] * bool(line.why), *missing, *left])
    command = "explain more images of these classes" if missing else _GALLERY
    return replace(line, verdict="undecided", why=why, command=command)


def _line(screened: Screened, images: int, name: str, tried: Sequence[Tried], pixels: Pixels) -> Checked:
    """Return the line about what was tested."""
    base = Checked("patch", NAME, "undecided", "context", images)
    changes = [(one, one.evidence) for one in tried if one.evidence is not None]
    if changes:
        return _bounded(_changed(base, changes), screened)
    known = [one for one in tried if one.pattern is not None]
    if known:
        differing = _differing(base, max(known, key=lambda one: one.closeness), len(known))
        return _with_pixels(differing, screened, pixels)
    largest = screened.largest
    measured_here = None if largest is None else replace(largest, what=largest.what.format(name=name))
    base = replace(base, effect=measured_here, limit=f"a region needs at least {MIN_EXCESS}")
    if tried or largest is None:
        return replace(base, why=f"maps suggest a region in {counted(len(tried))}")
    why = f"the maps of {screened.classes} classes suggest no region"
    if not _exclude(largest):
        return _with_pixels(replace(base, why=why, command=_MORE), screened, pixels)
    return _with_pixels(replace(base, verdict="not found", why=why), screened, pixels)


def _bounded(line: Checked, screened: Screened) -> Checked:
    """Say what a patch that was tested and not found leaves open: what maps did not exclude, and other kinds."""
    if line.verdict != "not found":
        return line
    if not screened.suspects and not _exclude(screened.largest):
        why = [line.why] * bool(line.why) + [
            "only regions of shared pixels were tested: maps neither suggest one nor exclude it"
        ]
        return replace(line, verdict="undecided", why="; ".join(why), command=_MORE)
    return replace(line, why=". ".join([line.why] * bool(line.why) + [_EXCLUDED]))


def _exclude(largest: Effect | None) -> bool:
    """Tell whether the maps exclude a region."""
    known = largest is not None and largest.images >= MIN_IMAGES
    return known and largest is not None and side(largest.low, largest.high, MIN_EXCESS) == "below"


def _with_pixels(line: Checked, screened: Screened, pixels: Pixels) -> Checked:
    """Say what a patch that was not found is: without a comparison of pixels, maps alone exclude none."""
    if not pixels.classes:
        return replace(line, verdict="undecided", why=f"{line.why}; {_NO_PIXELS}", command=_SHARDS)
    most = max(pixels.classes, screened.classes)
    alike = f"the pixels of {pixels.classes} of {counted(most)} were compared with those of other classes"
    if pixels.large or pixels.untested:
        return replace(line, why=f"{line.why}; {alike}")
    excluded = f". {_EXCLUDED}" * (line.verdict == "not found")
    return replace(line, why=f"{line.why}; {alike}, and none has a region of its own{excluded}")


def _changed(base: Checked, changes: Sequence[tuple[Tried, PatchEvidence]]) -> Checked:
    """Return the line about constant patches that the model was asked about; it shows the strongest."""
    verdicts = {one.name: evidence.verdict() for one, evidence in changes}
    first = min(verdicts.values(), key=_ORDER.index)
    alike = sorted(name for name, own in verdicts.items() if own == first)
    shown = [(one, evidence) for one, evidence in changes if one.name in alike]
    one, evidence = max(shown, key=lambda pair: _share(pair[1]))
    effect, control = measured(evidence, one.name, pasting=_by_pasting(evidence))
    why = [f"{len(alike)} of {counted(len(verdicts))} with a constant patch: {', '.join(alike)}"] * (len(verdicts) > 1)
    why += [
        f"with the patch overwritten, {percent(evidence.changed.share())} of the predictions of '{one.name}' change"
    ] * _by_pasting(evidence)
    command = "explain more images of the class" if first == "undecided" else ""
    return replace(base, verdict=first, effect=effect, control=control, why="; ".join(why), command=command)


def _by_pasting(evidence: PatchEvidence) -> bool:
    """Tell whether pasting shows more than overwriting."""
    verdicts = [_ORDER.index(one.verdict()) for one in (evidence.changed, evidence.pasted)]
    return verdicts[1] < verdicts[0]


def _share(evidence: PatchEvidence) -> float:
    return (evidence.pasted if _by_pasting(evidence) else evidence.changed).share()


def _differing(base: Checked, one: Tried, classes: int) -> Checked:
    """Return the line about suspected regions without common pixels; it shows the one nearest to a patch."""
    own, others = one.pattern or (0.0, 0.0)
    what = f"variation that the images of '{one.name}' share in the suspected region"
    return replace(
        base, verdict="not found", effect=Effect(what, own, None, None, one.images),
        control=Effect("the same region of other classes", others, None, None, one.others),
        limit=f"a patch needs at least {MIN_PATTERN}, and {MIN_PATTERN_RATIO} times that of other classes",
        why=f"maps suggest a region in {counted(classes)}, but its pixels differ from image to image",
    )  # fmt: skip


def _left(pixels: Pixels) -> list[str]:
    """Name the classes with a region of shared pixels that was not tested."""
    large = [f"{name} ({percent(share)} of the image)" for name, share in pixels.large.items()]
    too_large = f"the images of {counted(len(large))} share pixels in a region that was not tested: {_listed(large)}"
    beyond = f"{counted(len(pixels.untested))} with shared pixels beyond the {MAX_SUSPECTS} that are tested"
    return [
        *[f"{too_large}; over {percent(MAX_SHARED)}, no equal area is left for the control"] * bool(large),
        *[f"{beyond}: {_listed(pixels.untested)}"] * bool(pixels.untested),
    ]


def _missing(untested: Sequence[Tried], few: Mapping[str, int]) -> list[str]:
    """Name the classes with too few images, and say how many are needed."""
    suspected = [f"{one.name} ({one.images}, and {one.others} of other classes)" for one in untested]
    unsearched = [f"{name} ({images})" for name, images in few.items()]
    return [
        f"too few images to {what} {counted(len(named))}: {_listed(named)}; {needed}"
        for what, named, needed in (
            ("test a suspected region of", suspected, f"{2 * MIN_IMAGES} are needed, {MIN_IMAGES} in each half"),
            ("search", unsearched, f"{MIN_IMAGES} are needed in the half that is searched"),
        )
        if named
    ]


def _listed(named: Sequence[str]) -> str:
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
