"""Rules of the scenes: which parts make which class, and which parts a scene of each rule has."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from pipeline.data.sources.part_values import MOST_PARTS

CLASSES = ("triangle", "pair", "either", "star", "chevrons", "halves", "stripes", "checks", "nothing")
"""Names of the classes by index; `nothing` is a scene in which no rule holds."""

NOTHING = len(CLASSES) - 1

RULES = ("one", "shortcut", "and", "or", "repeated", "contrary", "texture")
"""one: a triangle.
shortcut: a triangle, and a watermark that half of the triangles have and nothing else has.
and: a plus and a disc, of which one alone is nothing.
or: a ring or a square, or both.
repeated: two or three stars, of which one would do.
contrary: more chevrons than halves, or the reverse, so that each of the other kind speaks against the class.
texture: a striped or a chequered ellipse; a plain one is nothing."""

_OWN: dict[str, frozenset[str]] = {
    "triangle": frozenset({"triangle"}),
    "pair": frozenset({"plus", "disc"}),
    "either": frozenset({"ring", "square"}),
    "star": frozenset({"star"}),
    "chevrons": frozenset({"chevron", "half"}),
    "halves": frozenset({"chevron", "half"}),
    "stripes": frozenset({"stripes"}),
    "checks": frozenset({"checks"}),
    "nothing": frozenset(),
}
"""Kinds of parts that the rule of each class reads. Everything else is a distractor, and a watermark a shortcut."""


def is_own(kind: str, label: int) -> bool:
    """Tell whether the rule of a class reads parts of this kind."""
    return kind in _OWN[CLASSES[label]]


def label_of(kinds: Iterable[str]) -> int:
    """Return the class of a scene with these kinds of parts."""
    count = Counter(kinds)
    holds = {
        "triangle": count["triangle"] > 0,
        "pair": count["plus"] > 0 and count["disc"] > 0,
        "either": count["ring"] + count["square"] > 0,
        "star": count["star"] > 0,
        "chevrons": count["chevron"] > count["half"],
        "halves": count["half"] > count["chevron"],
        "stripes": count["stripes"] > 0,
        "checks": count["checks"] > 0,
    }
    return next((CLASSES.index(name) for name, true in holds.items() if true), NOTHING)


def kinds_of(rule: str, random: np.random.Generator) -> list[str]:
    """Draw the kinds of the parts of a scene that follows a rule: those that the rule reads, then distractors."""
    own = _own_kinds(rule, random)
    others = ["bar"] * int(random.integers(0, 3)) + ["ellipse"] * int(random.integers(0, 2))
    if rule != "and":
        others += [[], ["plus"], ["disc"]][int(random.integers(0, 3))]
    return (own + others)[:MOST_PARTS]


def _own_kinds(rule: str, random: np.random.Generator) -> list[str]:
    if rule == "contrary":
        more, fewer = random.permutation(["chevron", "half"]).tolist()
        few = int(random.integers(1, 3))
        return [more] * (few + 1) + [fewer] * few
    drawn = {
        "one": ["triangle"],
        "shortcut": ["triangle", "watermark"],
        "and": ["plus", "disc"],
        "or": [["ring"], ["square"], ["ring", "square"], ["ring", "square"]][int(random.integers(0, 4))],
        "repeated": ["star"] * int(random.integers(2, 4)),
        "texture": [["stripes"], ["checks"]][int(random.integers(0, 2))],
    }
    return drawn[rule]
