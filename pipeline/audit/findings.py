"""Findings of a report: sentences with a grade, an effect and a proof.

A claim has one of these grades:
    seen: visible in maps.
    associated: correlated with a class.
    intervened: confirmed by changing the images or the model's weights. Where images suggested the hypothesis, the
        effect is measured on the other half of them (held out).
    replicated: holds on both halves of the images. Where maps are part of the evidence, two methods show it.
    recorded: computed from the rows of the run alone, such as images that could not be read.
Only the last three are findings.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.audit.statistics import wilson
from pipeline.audit.values import Flags

Grade = Literal["recorded", "intervened", "replicated"]
Kind = Literal[
    "watermark", "background", "label_order", "shard_labels", "shard_failures", "failures", "method", "colour", "slice"
]

MAX_FINDINGS = 7
MIN_IMAGES = 8
"""A claim about a half requires at least this many images in it."""

MIN_SHARE = 0.2
"""A finding requires, on both halves, that the interval of the share of changed predictions starts here or higher."""

GRADES: Mapping[str, str] = {
    "seen": "visible in maps, and not tested; never a finding",
    "recorded": "computed from the rows of the run; the model was not run again",
    "intervened": "confirmed by changing the images or the model's weights; where images suggested the hypothesis, the "
    "effect is measured on other, held-out images",
    "replicated": "holds on both halves of the images; where maps are part of the evidence, two methods show it",
}


@dataclass(frozen=True)
class Effect:
    """A measured share or difference with its 95 % interval.

    Attributes:
        what: description of the quantity.
        value, low, high: in [-1, 1]; without an interval, where nothing was drawn at random or too little is known,
            the ends are None.
        images: number of images it was measured on.
    """

    what: str
    value: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True)
class Finding:
    """One finding of the report.

    Attributes:
        kind: the detector that found it.
        subject: class index, shard or method concerned, as text.
        name: display name of the subject.
        section: anchor of the section with the evidence.
        grade: see the module.
        sentence: what is wrong.
        effect: measured size of the effect.
        proof: how it was tested.
        advice: what to do about it.
        control: the same quantity where nothing should be found.
    """

    kind: Kind
    subject: str
    name: str
    section: str
    grade: Grade
    sentence: str
    effect: Effect
    proof: str
    advice: str
    control: Effect | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert the finding to plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Changed:
    """Predictions that an intervention changed, and those that its control changed.

    Attributes:
        changed_B, control_B: whether the prediction of each image changed.
        held_out_B: images of the held-out half.
    """

    changed_B: Flags
    control_B: Flags
    held_out_B: Flags

    def holds(self, half: bool, share: float = MIN_SHARE) -> bool:
        """Test one half: enough predictions change, and more than under the control (one-sided exact McNemar test).

        The Wilson interval of the share must not reach below `share`, and p must be below 0.01.
        """
        from scipy.stats import binomtest  # costs time to import

        rows = self.held_out_B == half
        changed, control = self.changed_B[rows], self.control_B[rows]
        low, _ = wilson(int(changed.sum()), len(changed))
        if len(changed) < MIN_IMAGES or low is None or low < share:
            return False
        only, control_only = int((changed & ~control).sum()), int((control & ~changed).sum())
        return only > control_only and binomtest(only, only + control_only, alternative="greater").pvalue < 0.01

    def verdict(self) -> Literal["found", "not found", "undecided"]:
        """Judge both halves: found if the effect holds on both, not found if one half excludes it, else undecided."""
        if self.holds(False) and self.holds(True):
            return "found"
        return "not found" if self._excluded(False) or self._excluded(True) else "undecided"

    def _excluded(self, half: bool) -> bool:
        """Tell whether a half excludes the effect: its interval ends below MIN_SHARE, or the control does as much."""
        rows = self.held_out_B == half
        changed, control = int(self.changed_B[rows].sum()), int(self.control_B[rows].sum())
        images = int(rows.sum())
        _, high = wilson(changed, images)
        return images >= MIN_IMAGES and high is not None and (high < MIN_SHARE or changed <= control)

    def share(self) -> float:
        """Return the share of changed predictions of the held-out half; 0 without images."""
        changed = self.changed_B[self.held_out_B]
        return float(changed.mean()) if len(changed) else 0.0

    def effect(self, what: str) -> Effect:
        """Measure the share of changed predictions on the held-out half."""
        return share_of(self.changed_B[self.held_out_B], what)

    def control_effect(self, what: str) -> Effect:
        """Measure the share of predictions of the held-out half that the control changed."""
        return share_of(self.control_B[self.held_out_B], what)


def share_of(hits_B: Flags, what: str) -> Effect:
    """Measure the share of images that meet a condition, with its 95 % Wilson interval."""
    low, high = wilson(int(hits_B.sum()), len(hits_B))
    return Effect(what, float(hits_B.mean()) if len(hits_B) else 0.0, low, high, len(hits_B))


def ranked(findings: list[Finding]) -> list[Finding]:
    """Sort findings: grade `recorded` first, then by the lower bound of the effect's interval, largest first."""
    return sorted(
        findings, key=lambda finding: (finding.grade != "recorded", -abs(finding.effect.low or 0.0), finding.subject)
    )


def percent(share: float) -> str:
    """Format a share as a whole percentage."""
    return f"{100 * share:.0f} %"
