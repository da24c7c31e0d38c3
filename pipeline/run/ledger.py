"""The ledger of attempts: which steps of a run have begun and not ended, and at which images they ended early.

It runs in a process of its own, which needs nothing but this file: no pictures, no tables, no torch.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

ENDS = 2
"""An image is quarantined after this many isolated attempts end at it: a single end may be an unrelated kill."""


class Work(NamedTuple):
    """One step that is attempted: reading or explaining a chunk, named by the ordinals of its shard and of itself."""

    stage: Literal["read", "explain"]
    shard: int
    chunk: int


@dataclass(frozen=True)
class Attempt:
    """State of a chunk at the start of an attempt: whether to isolate its images, and which are quarantined."""

    isolated: bool = False
    quarantined: frozenset[int] = frozenset()
    reasons: Mapping[int | None, str] = field(default_factory=dict)
    """Why earlier attempts ended, as far as they could tell: by image, and None for the attempt at the whole chunk."""


class Attempts(Protocol):
    """Records attempts, and outlives the workers that make them."""

    def begin(self, work: Work) -> Attempt:
        """Record that a step begins, and return how to attempt it."""
        ...

    def reach(self, work: Work, image: int | None) -> None:
        """Record that an isolated attempt has reached an image, or has passed all of them (None)."""
        ...

    def fail(self, work: Work, reason: str) -> None:
        """Record why the present attempt ends."""
        ...

    def end(self, work: Work) -> None:
        """Forget a finished step."""
        ...


@dataclass
class Ledger:
    """Attempts, kept in the memory of one process."""

    _begun: dict[Work, int | None] = field(default_factory=dict)
    """Steps in progress, and the image that the latest isolated attempt has reached."""
    _ends: dict[Work, Counter[int]] = field(default_factory=dict)
    """How many isolated attempts ended at each image."""
    _reasons: dict[Work, dict[int | None, str]] = field(default_factory=dict)
    """Why attempts ended, by the image that they had reached."""

    def begin(self, work: Work) -> Attempt:
        """Record that a step begins, and return how to attempt it."""
        isolated = work in self._begun
        ends = self._ends.setdefault(work, Counter())
        reached = self._begun.get(work)
        if reached is not None:
            ends[reached] += 1
        self._begun[work] = None
        quarantined = frozenset(image for image, times in ends.items() if times >= ENDS)
        return Attempt(isolated, quarantined, dict(self._reasons.get(work, {})))

    def reach(self, work: Work, image: int | None) -> None:
        """Record that an isolated attempt has reached an image, or has passed all of them (None)."""
        self._begun[work] = image

    def fail(self, work: Work, reason: str) -> None:
        """Record why the present attempt ends."""
        self._reasons.setdefault(work, {})[self._begun.get(work)] = reason

    def end(self, work: Work) -> None:
        """Forget a finished step."""
        self._reasons.pop(work, None)
        self._begun.pop(work, None)
        self._ends.pop(work, None)

    def under_way(self) -> list[Work]:
        """List the steps in progress."""
        return sorted(self._begun)
