"""What was checked and what was not: one line for each detector, with what it and its control measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.audit.findings import Changed, Effect, Finding

Verdict = Literal["found", "not found", "undecided", "not checked"]

NOTHING_EXPLAINED = "no image was explained"
_AUDIT = "camatlas audit RUN"


@dataclass(frozen=True)
class Unasked:
    """Why the model was not asked, and what asks it.

    Attributes:
        why: the reason, in words that follow "but".
        command: what would ask it.
    """

    why: str
    command: str


NO_MODEL = Unasked("the model was not loaded (--no-model)", f"{_AUDIT}, without --no-model")
"""The model is not wanted in a report."""


@dataclass(frozen=True)
class Checked:
    """One line of the table.

    Attributes:
        detector: stable name for programs.
        name: what was looked for.
        verdict: `undecided` where an interval contains the limit, or where there are too few images for a claim.
        section: anchor of the section with the details.
        images: number of images that the detector looked at.
        effect: the largest effect that it measured, whatever the verdict.
        control: the same quantity where nothing should be found.
        limit: what the effect is compared with.
        why: the reason of the verdict, where the numbers alone do not tell it.
        command: what would check it.
    """

    detector: str
    name: str
    verdict: Verdict
    section: str
    images: int = 0
    effect: Effect | None = None
    control: Effect | None = None
    limit: str = ""
    why: str = ""
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """Convert the line to plain JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """Say in one sentence why this was not checked, and what would check it."""
        command = f" ({self.command})" if self.command else ""
        return f"{self.name}: {self.why}{command}."


def not_checked(detector: str, name: str, section: str, why: str, command: str = "") -> Checked:
    """Return the line of a detector that could not work."""
    return Checked(detector, name, "not checked", section, why=why, command=command)


def of_changes(
    base: Checked, tried: Sequence[tuple[str, Changed]], findings: Sequence[Finding], what: str, of_control: str
) -> Checked:
    """Return the line of a detector that changes images and runs the model again.

    Args:
        base: the line without its result.
        tried: the classes that were tested, with the predictions that changed.
        findings: what the detector found.
        what: description of the effect, with `{name}` for the class.
        of_control: description of the control.
    """
    verdicts = {name: changed.verdict() for name, changed in tried}
    found = {finding.name for finding in findings}
    order = ("found", "undecided", "not found")
    name, changed = min(tried, key=lambda one: (order.index(verdicts[one[0]]), -one[1].share(), one[0]))
    verdict: Verdict = "found" if found else verdicts[name]
    why = _counted(verdict, verdicts)
    return Checked(
        base.detector, base.name, verdict, base.section, base.images,
        changed.effect(what.format(name=name)), changed.control_effect(of_control), base.limit, why,
        "explain more images of the class" if verdict == "undecided" else "",
    )  # fmt: skip


def _counted(verdict: str, verdicts: Mapping[str, Verdict]) -> str:
    alike = sorted(name for name, own in verdicts.items() if own == verdict)
    return f"{len(alike)} of {len(verdicts)} suspected classes: {', '.join(alike)}" if len(verdicts) > 1 else ""


def not_loaded(why: str) -> Unasked:
    """Return the reason why a model could not be loaded, and what asks it."""
    return Unasked(f"the model could not be loaded ({why})", f"restore the model, then {_AUDIT}")


def counted(classes: int) -> str:
    """Format a number of classes."""
    return f"{classes} class" if classes == 1 else f"{classes} classes"
