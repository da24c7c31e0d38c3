"""What a report may state: sentences with their grade, effect and proof.

The ladder: a claim is `seen` (maps look so), `associated` (it goes with a label or an error), `intervened` (the
model's answer changes when the suspected thing is changed, and the effect is measured on images that did not raise the
suspicion) or `replicated` (intervened or counted on both halves of the images, and where maps raised the suspicion, for
two methods that pass the sanity check). Only the last two are findings. What the run recorded of its data (images that
could not be read) is `recorded`: it is counted, nothing is inferred.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from pipeline.audit.statistics import wilson
from pipeline.audit.values import Flags

Grade = Literal["recorded", "intervened", "replicated"]
Kind = Literal["watermark", "background", "shard_labels", "shard_failures", "method", "colour"]

MOST_FINDINGS = 7
ENOUGH = 8
"""Images that a half must have for a claim about it."""

LEAST_SHARE = 0.2
"""The interval of a share must lie above it, on both halves, before it is worth a finding."""

GRADES: Mapping[str, str] = {
    "recorded": "counted in the rows of the run; nothing is inferred",
    "intervened": "the answer changed when the suspected thing was changed, on images that did not raise the suspicion",
    "replicated": "holds on both halves of the images and, where maps raised it, for two methods that follow the model",
}


@dataclass(frozen=True)
class Effect:
    """A measured share or difference with its 95 % interval.

    Attributes:
        what: in words.
        value, low, high: in [-1, 1].
        images: how many it was measured on.
    """

    what: str
    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Finding:
    """One sentence that the report stands for.

    Attributes:
        kind: which detector.
        subject: the class index, shard or method it is about, as text.
        name: the same for people.
        section: anchor of the section with the evidence.
        grade: see the module.
        sentence: what is wrong.
        effect: how much.
        proof: what was done to know it.
        advice: what to do about it.
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

    def to_json(self) -> dict[str, Any]:
        """Write it as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Changed:
    """Whose answers an intervention changed, and whose its control changed.

    Attributes:
        changed_B, control_B: per image.
        held_out_B: images that did not raise the suspicion.
    """

    changed_B: Flags
    control_B: Flags
    held_out_B: Flags

    def holds(self, half: bool) -> bool:
        """Whether many answers of one half change, and more of them than by the control (McNemar's exact test)."""
        from scipy.stats import binomtest  # costs time to import

        rows = self.held_out_B == half
        changed, control = self.changed_B[rows], self.control_B[rows]
        low, _ = wilson(int(changed.sum()), len(changed))
        if len(changed) < ENOUGH or low is None or low < LEAST_SHARE:
            return False
        only, control_only = int((changed & ~control).sum()), int((control & ~changed).sum())
        return only > control_only and binomtest(only, only + control_only, alternative="greater").pvalue < 0.01

    def effect(self, what: str) -> Effect:
        """Measure on the held-out half alone."""
        changed = self.changed_B[self.held_out_B]
        low, high = wilson(int(changed.sum()), len(changed))
        return Effect(what, float(changed.mean()), low or 0.0, high or 0.0, len(changed))

    def control_share(self) -> float:
        """Share of answers that the control changed, on the held-out half."""
        return float(np.mean(self.control_B[self.held_out_B]))


def ranked(findings: list[Finding]) -> list[Finding]:
    """Order findings: lost data first, then by the lower end of the effect's interval."""
    return sorted(findings, key=lambda found: (found.grade != "recorded", -abs(found.effect.low), found.subject))


def percent(share: float) -> str:
    """Write a share for people."""
    return f"{100 * share:.0f} %"
