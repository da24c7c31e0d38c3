"""Expected findings of an audit of a planted run, and their comparison with the actual ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Truth:
    """Expected findings.

    Attributes:
        kind: kind of the findings; empty when none is expected.
        subjects: their subjects: names of classes, of a shard or of a method.
        minimum: the smallest number of these subjects that must be found.
        also_allowed: other kinds of findings that are correct for the same subjects.
    """

    kind: str = ""
    subjects: frozenset[str] = frozenset()
    minimum: int = 0
    also_allowed: frozenset[str] = frozenset()

    def problems(self, findings: Sequence[Mapping[str, Any]]) -> list[str]:
        """List the missing and the unexpected findings.

        Args:
            findings: dicts with `kind` and `subject`, and with `name` if the subject is an index; a merged finding
                counts with each kind of its evidence.
        """
        kinds = [(evidence["kind"], finding) for finding in findings for evidence in finding.get("evidence", [finding])]
        actual = {(kind, finding.get("name", finding["subject"])) for kind, finding in kinds}
        expected = {(self.kind, subject) for subject in self.subjects}
        allowed = {(kind, subject) for kind in self.also_allowed for subject in self.subjects}
        problems = [
            f"unexpected: {kind} of {subject}" for kind, subject in sorted(actual - expected - allowed, key=str)
        ]
        found = len(actual & expected)
        if found < self.minimum:
            problems.append(f"{self.kind}: found {found} of {sorted(self.subjects)}, expected at least {self.minimum}")
        return problems
