"""Says in a sentence why a label is no class: what it is instead, and what to write."""

import re

from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.multi_hot import multi_hot_text

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_SHOWN = 80
UNKNOWN = "is neither a class index nor a known class"
"""What is wrong with a label that a table of names might know."""


def why_no_class(text: str, classes: ClassTable) -> str:
    """Return why a label is no class, as the part of a sentence that begins with the label."""
    shown, text = f"'{text[:_SHOWN]}'", text.strip()
    if sharing := classes.sharing(text):
        return f"{shown} is the name of several classes ({_listed(sharing)}), so that it says none; write the index"
    if sentence := multi_hot_text(text):
        return f"{shown} {sentence}"
    if _NUMBER.fullmatch(text) and not text.isdigit():
        kind = "is negative" if text.startswith("-") and float(text).is_integer() else "is no whole number"
        return f"{shown} {kind}, so it is no class index, and no class has this name"
    return f"{shown} {UNKNOWN}"


def is_a_name(text: str) -> bool:
    """Return whether a label is meant as a name: it is neither a number nor a list of 0 and 1."""
    return _NUMBER.fullmatch(text.strip()) is None and not multi_hot_text(text.strip())


def what_to_do(text: str, classes: ClassTable) -> str:
    """Return what mends labels such as this one."""
    if classes.sharing(text):
        return "give each class a name of its own in data.classes, or write class indices"
    if sentence := multi_hot_text(text.strip()):
        return f"this {sentence}"
    if _NUMBER.fullmatch(text.strip()):
        return "class indices are whole numbers from 0 on; correct the labels"
    if classes.names:
        return f"write labels as {classes.source} does, or class indices"
    return "name the table of their names in data.classes"


def _listed(indices: tuple[int, ...]) -> str:
    return " and ".join(map(str, indices)) if len(indices) < 4 else f"{', '.join(map(str, indices[:3]))}, ..."
