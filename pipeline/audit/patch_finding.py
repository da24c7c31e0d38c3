"""The finding about a constant patch, in sentences."""

from collections.abc import Sequence

from pipeline.audit.findings import Effect, Finding, percent
from pipeline.audit.patch_regions import described
from pipeline.audit.patches import PatchEvidence, Suspect

CHANGED = "predictions of '{name}' that change with the patch overwritten"
CONTROL = "the same with an equal area elsewhere overwritten"
PASTED = "images of other classes that are predicted as '{name}' with the patch pasted in"
PASTED_CONTROL = "the same with this region of images of other classes pasted in"
_OVERWRITTEN = "It was then overwritten with the same region of images of other classes, and the model was run again."
_PASTED = "It was then pasted into images of other classes, and the model was run again."


def finding(
    suspect: Suspect, evidence: PatchEvidence, name: str, following: Sequence[str] | None = None
) -> Finding | None:
    """Return the finding when both halves show the effect, else None.

    Args:
        suspect: the region.
        evidence: what overwriting it changed.
        name: name of the class.
        following: the methods that follow the model; two of them that show the region make a replicated finding. None
            where this was not measured.
    """
    if evidence.verdict() != "found":
        return None
    overwritten = evidence.changed.verdict() == "found"
    effect, control = measured(evidence, name, pasting=not overwritten)
    shown_by = [method for method in suspect.methods if method in (following or ())]
    return Finding(
        "watermark", str(suspect.predicted), name, "context", "replicated" if len(shown_by) > 1 else "intervened",
        f"A constant patch {described(suspect.region_uv)} makes the model predict '{name}'. "
        + (_overwritten if overwritten else _pasted)(evidence, name),
        effect,
        f"{_suggested(suspect)} {_OVERWRITTEN if overwritten else _PASTED}{_donors(evidence, name)} The effect holds "
        f"on both halves, and its value is that of the held-out half.{_followed(suspect, shown_by, following)}",
        "Look for a watermark, a frame or a scanner mark in this region. Crop it, or add training images from other "
        "sources.",
        control,
    )  # fmt: skip


def measured(evidence: PatchEvidence, name: str, *, pasting: bool) -> tuple[Effect, Effect]:
    """Return what overwriting or pasting changed on the held-out half, and what its control changed."""
    if pasting:
        return evidence.pasted.effect(PASTED.format(name=name)), evidence.pasted.control_effect(PASTED_CONTROL)
    return evidence.changed.effect(CHANGED.format(name=name)), evidence.changed.control_effect(CONTROL)


def _overwritten(evidence: PatchEvidence, name: str) -> str:
    effect, control = measured(evidence, name, pasting=False)
    return (
        f"{_carried(evidence, name)}With the patch overwritten, {percent(effect.value)} of these predictions change "
        f"(control: {percent(control.value)}). With the patch pasted in, the model predicts "
        f"'{name}' for {percent(evidence.others)} of sampled images of other classes."
    )


def _pasted(evidence: PatchEvidence, name: str) -> str:
    effect, control = measured(evidence, name, pasting=True)
    return (
        f"{_carried(evidence, name)}With the patch pasted in, the model predicts '{name}' for "
        f"{percent(effect.value)} of sampled images of other classes (control: {percent(control.value)}). With the "
        f"patch overwritten, {percent(evidence.changed.share())} of the predictions of '{name}' change: these images "
        "have other evidence for the class, too."
    )


def _carried(evidence: PatchEvidence, name: str) -> str:
    """Say which share of the images carries the patch, unless all do."""
    if evidence.carriers is None or evidence.carriers >= 1:
        return ""
    return f"{percent(evidence.carriers)} of the sampled images predicted as '{name}' carry it. "


def _donors(evidence: PatchEvidence, name: str) -> str:
    """Say from which images the patch was pasted."""
    if evidence.carriers is None:
        return f" It was pasted from all sampled images predicted as '{name}', whether or not they carry it."
    return " It was pasted from images that carry it."


def _suggested(suspect: Suspect) -> str:
    if suspect.methods:
        return f"The region was found in the mean maps of {', '.join(suspect.methods)} on one half of the images."
    return (
        "The region was found on one half of the images, by pixels that images with this prediction share and others "
        "lack; maps did not lead to it."
    )


def _followed(suspect: Suspect, shown_by: Sequence[str], following: Sequence[str] | None) -> str:
    """Say what is known about the methods whose maps suggested the region; nothing where pixels did."""
    if not suspect.methods:
        return ""
    if following is None:
        return (
            " Whether the maps of these methods follow the model was not measured (camatlas sanity RUN); the effect "
            "does not depend on it."
        )
    if not shown_by:
        return (
            " camatlas sanity shows of none of these methods that its maps follow the model; the effect does not "
            "depend on it."
        )
    verb = "follows" if len(shown_by) == 1 else "follow"
    return f" Of these methods, {', '.join(shown_by)} {verb} the model."
