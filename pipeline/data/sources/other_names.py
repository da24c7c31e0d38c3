"""What else a row calls the class of its image: a name or a WordNet id beside the label, which must not contradict it.

A list whose indices count from 1, or another tool's order of classes, shows itself here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from pipeline.data.sources.classes import ClassTable
from pipeline.errors import ConfigError

_NAMES = frozenset({"classname", "labelname", "label", "class", "target", "category", "wnid", "wordnetid", "synset"})
"""Columns and fields that may hold names of classes, without case, spaces and underscores."""
_SHOWN = 3


def columns_of_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns, or fields, that may name a class."""
    return tuple(dict.fromkeys(name for name in names if plain(name) in _NAMES))


def plain(column: str) -> str:
    """Write the name of a column without case, spaces, points, dashes and underscores."""
    return re.sub(r"[\s_.\-]", "", column).lower()


def contradiction(index: int, others: Mapping[str, object], classes: ClassTable) -> str:
    """Say which of the other names of a class is certainly that of another one; empty if none is."""
    for column, cell in others.items():
        if isinstance(cell, str) and (named := classes.named(cell)) not in (None, index):
            name = f" ({classes.name(index)})" if classes.name(index) else ""
            return f"label {index}{name}, but {column} '{cell[:80]}', which is class {named}"
    return ""


def agreeing(path: str, rows: Iterator[tuple[str, ...]], classes: ClassTable) -> Iterator[tuple[str, str]]:
    """Yield the image and the label of each row of a label file, and look at the names beside them.

    Args:
        path: the file.
        rows: the names of the columns, then the cells of each row: image, label, and other names of its class.
        classes: the class table.

    Raises:
        ConfigError: after the last row, if any of these names is that of another class.
    """
    _, _, *columns = next(rows)
    known: dict[tuple[str, ...], str] = {}
    wrong, count = 0, 0
    examples: list[str] = []
    for image, label, *others in rows:
        count += 1
        cells = (label, *others)
        said = known.get(cells)
        if said is None:
            index = classes.index(label)
            said = "" if index is None else contradiction(index, dict(zip(columns, others, strict=True)), classes)
            known[cells] = said
        if said:
            wrong += 1
            examples += [f"'{image}' has {said}"] if len(examples) < _SHOWN else []
        yield image, label
    if wrong:
        what = f"'{path}': columns contradict each other in {wrong:,} of {count:,} rows: {'; '.join(examples)}"
        hint = "correct class_index (it counts from 0, in the order of data.classes), or remove the wrong column"
        raise ConfigError.one("data.labels", what, hint)
