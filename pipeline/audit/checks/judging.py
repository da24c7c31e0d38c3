"""Judges measured numbers by their bounds: a check passes, fails, or, of a small slice, is skipped and reported so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.audit.checks.file import Check
from pipeline.audit.checks.measuring import Findings, Measured, Slices, measure
from pipeline.audit.checks.queries import closer
from pipeline.results.query import Run

Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Verdict:
    """The verdict on a check, or on one of its slices.

    Attributes:
        check: its name.
        slice: the column and the value of the slice; empty for a check without slices.
        bound: what the number must meet.
        outcome: passed, failed or skipped.
        sentence: why, and what a reader must know; empty for a check that passed clearly.
        measured: the number.
        closer: a query that lists what it is about; empty if there is none.
    """

    check: str
    slice: str
    bound: str
    outcome: Outcome
    sentence: str
    measured: Measured
    closer: str

    @property
    def title(self) -> str:
        """Return the name of the check with its slice."""
        return f"{self.check} [{self.slice}]" if self.slice else self.check

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON."""
        found = self.measured
        return {
            "check": self.check, "slice": self.slice or None, "outcome": self.outcome, "value": found.value,
            "low": found.low, "high": found.high, "images": found.images, "bound": self.bound,
            "sentence": self.sentence or None, "sql": self.closer or None,
        }  # fmt: skip


def judge(run: Run, checks: Sequence[Check], findings: Findings) -> list[Verdict]:
    """Measure and judge all checks."""
    return [verdict for check in checks for verdict in _judged(run, check, measure(run, check, findings))]


def failed(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether a check failed."""
    return any(verdict.outcome == "failed" for verdict in verdicts)


def summary(verdicts: Sequence[Verdict]) -> str:
    """Format the numbers of verdicts."""
    counts = {outcome: sum(one.outcome == outcome for one in verdicts) for outcome in ("failed", "passed", "skipped")}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "failed")


def _judged(run: Run, check: Check, measured: Slices) -> Iterator[Verdict]:
    bound = " and ".join(map(str, check.bounds))
    judged = False
    for name, found in measured.items():
        outcome, sentence = _verdict(check, found)
        judged |= outcome != "skipped"
        shown = f"{check.by} = {'none' if name is None else repr(name)}" if check.by else ""
        looking = closer(run, check, name) if outcome == "failed" else ""
        yield Verdict(check.name, shown, bound, outcome, sentence, found, looking)
    if not judged:
        sentence = f"nothing was judged: no slice by {check.by} has {check.min_images} images with a value"
        yield Verdict(check.name, "", bound, "failed", sentence, Measured(None), closer(run, check, ""))


def _verdict(check: Check, found: Measured) -> tuple[Outcome, str]:
    if check.by and found.images is not None and found.images < check.min_images:
        return "skipped", f"{found.images} images with a value, fewer than min_images: {check.min_images}"
    if found.value is None:
        return "failed", f"no number: {found.problem}"
    broken = [str(bound) for bound in check.bounds if not bound.holds(found.value)]
    sentences = [f"{found.value:.6g} is not {' and '.join(broken)}"] * bool(broken)
    unsure = [bound.threshold for bound in check.bounds if _within(bound.threshold, found)]
    sentences += [
        f"the threshold {threshold:g} lies within the 95 % interval: {found.images:,} images cannot tell on which side "
        "the true value is"
        for threshold in dict.fromkeys(unsure)
    ]
    return ("failed" if broken else "passed"), "; ".join([*sentences, *found.notes])


def _within(threshold: float, found: Measured) -> bool:
    return found.low is not None and found.high is not None and found.low <= threshold <= found.high
