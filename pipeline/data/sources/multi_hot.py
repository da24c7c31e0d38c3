"""Recognises multi-hot vectors, one number for each class, where a list of the classes of an image is expected.

Read as indices, [0, 0, 1, 0] would give every image the classes 0 and 1.
"""

import re
from collections.abc import Sequence

from pipeline.data.sources.box_formats import BadAnnotationError

_WORDS = {"0": 0, "1": 1, "false": 0, "true": 1}
_NONE = ("", "-1", "nan", "null", "none")
_NUMBERS = {f"{word}{zeros}": bit for word, bit in (("0", 0), ("1", 1)) for zeros in ("", ".", ".0")} | _WORDS
_BETWEEN = re.compile(r"[\s,;|]+")
_SHOWN = 12


def refuse_multi_hot(cell: Sequence[object]) -> None:
    """Raise BadAnnotationError if a list can hold no indices, because it is a multi-hot vector.

    A list of classes names each class once, and fills up with -1 at its end only. So a list of more than one entry
    is a vector if it holds nothing but 0 and 1 and repeats one of them, or -1 before its last class, or booleans.
    """
    entries = [_plain(one) for one in cell]
    while entries and entries[-1] in _NONE:
        entries.pop()
    if len(entries) < 2 or any(one not in _WORDS and one not in _NONE for one in entries):
        return
    is_list = (
        len(set(entries)) == len(entries)
        and not set(entries) & {*_NONE}
        and not any(isinstance(one, bool) for one in cell)
    )
    if not is_list:
        raise BadAnnotationError("label", f"[{_shown(entries)}] {_sentence(entries)}")


def multi_hot_text(text: str) -> str:
    """Return what a text such as `0 0 1 0` or `[0. 0. 1.]` is; empty unless it is a multi-hot vector."""
    entries = [_NUMBERS.get(part) for part in _BETWEEN.split(text.strip("[]() \t").lower())]
    if len(entries) < 2 or None in entries:
        return ""
    return _sentence([str(bit) for bit in entries])


def is_pair(names: Sequence[str]) -> bool:
    """Return whether a list is [0, 1] or [1, 0], which may be indices or, for two classes, a multi-hot vector."""
    return len(names) == 2 and set(map(_plain, names)) == {"0", "1"}


_DOUBTFUL = (
    "may be a multi-hot vector, or the indices of both classes, and no list of a single index shows which; write "
    "[{one}] if it is a vector, and the names of both classes, which data.classes gives, if it means both"
)
"""What is wrong with [0, 1] and [1, 0] where the model has two classes."""


def doubtful_pair(names: Sequence[str]) -> str:
    """Return why a pair is refused where the model has two classes."""
    bits = [_plain(name) for name in names]
    return f"[{', '.join(bits)}] {_DOUBTFUL.format(one=bits.index('1'))}"


def _sentence(entries: Sequence[str]) -> str:
    """Say what a vector is, and which indices it stands for."""
    chosen = [str(i) for i, one in enumerate(entries) if _WORDS.get(one) == 1]
    return (
        "is a multi-hot vector, one number for each class; write the indices of the classes, each once, here "
        f"[{', '.join(chosen)}]"
    )


def _shown(entries: Sequence[str]) -> str:
    return ", ".join(entries[:_SHOWN]) + (", ..." if len(entries) > _SHOWN else "")


def _plain(cell: object) -> str:
    text = str("" if cell is None else cell).strip().lower()
    return str(_NUMBERS[text]) if text in _NUMBERS and text not in _WORDS else text
