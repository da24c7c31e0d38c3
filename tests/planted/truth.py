"""What an audit should find in a planted run, and what is wrong with what it found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Truth:
    """What an audit should find.

    Attributes:
        kind: of the findings; empty where there is nothing to find.
        subjects: what they are about: names of classes, of a shard or of a method.
        enough: at least so many of the subjects must be found.
        besides: other kinds of finding that are right about the same subjects.
    """

    kind: str = ""
    subjects: frozenset[str] = frozenset()
    enough: int = 0
    besides: frozenset[str] = frozenset()

    def mistakes(self, findings: Sequence[Mapping[str, Any]]) -> list[str]:
        """Tell what is missing from findings, and what should not be there.

        Args:
            findings: dicts with `kind` and `subject`; and `name`, where the subject is an index.
        """
        told = {(finding["kind"], finding.get("name", finding["subject"])) for finding in findings}
        right = {(self.kind, subject) for subject in self.subjects}
        also_right = {(kind, subject) for kind in self.besides for subject in self.subjects}
        wrong = [f"{kind} of {subject} is not so" for kind, subject in sorted(told - right - also_right, key=str)]
        found = len(told & right)
        if found < self.enough:
            wrong.append(f"{self.kind}: {found} of {sorted(self.subjects)} found, {self.enough} or more were to be")
        return wrong
