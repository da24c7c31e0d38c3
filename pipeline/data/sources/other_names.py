"""What else a row calls the class of its image: a name or a WordNet id beside the label, which must not contradict it.

A list whose indices count from 1, or another tool's order of classes, shows itself here.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

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


class Contradiction(NamedTuple):
    """What a row says of its class, and by how much its index exceeds that of the class which it names."""

    text: str
    excess: int


def contradiction(index: int, others: Mapping[str, object], classes: ClassTable) -> Contradiction | None:
    """Return the first of the other names of a class that is certainly that of another one."""
    for column, cell in others.items():
        named = classes.named(cell) if isinstance(cell, str) else None
        if named is not None and named != index:
            name = f" ({classes.name(index)})" if classes.name(index) else ""
            return Contradiction(
                f"label {index}{name}, but {column} '{str(cell)[:80]}', which is class {named}", index - named
            )
    return None


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
    known: dict[tuple[str, ...], Contradiction | None] = {}
    count = 0
    wrong: Counter[int] = Counter()
    examples: list[str] = []
    for image, label, *others in rows:
        count += 1
        cells = (label, *others)
        if cells not in known:
            index = classes.index(label)
            named = dict(zip(columns, others, strict=True))
            known[cells] = None if index is None else contradiction(index, named, classes)
        if found := known[cells]:
            wrong[found.excess] += 1
            examples += [f"'{image}' has {found.text}"] if wrong.total() <= _SHOWN else []
        yield image, label
    if wrong:
        what = f"'{path}': columns contradict each other in {wrong.total():,} of {count:,} rows: {'; '.join(examples)}"
        raise ConfigError.one("data.labels", what, _FROM_ONE if set(wrong) == {1} else _HINT)


_FROM_ONE = "class_index seems to count from 1; subtract 1, or write the names into that column"
_HINT = "class_index counts from 0, in the order of data.classes; correct it, or remove the column that is wrong"
