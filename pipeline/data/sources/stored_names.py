"""Names of classes that tables store for their numbers, as the library `datasets` does, beside the table of the run.

A table numbers its own classes: label 0 of a part of ImageNet is class 0 of ImageNet only by chance.
"""

from collections.abc import Iterable, Sequence

from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.columns import label_column
from pipeline.data.sources.shards import Shard
from pipeline.errors import ConfigError, nearest

_SAME = 0.9
"""Share of names that must be known for a list as long as the class table to be the same list."""


def names_to_read_by(shard: Shard, column: str, classes: ClassTable) -> Sequence[str]:
    """Return the names that stand for the numbers of a table; empty where a number is the index of a class already."""
    names = _stored(shard, column)
    return () if None in _places(names, classes) else names


def agreed_names(
    shards: Iterable[Shard], column: str, classes: ClassTable, outputs: int | None = None
) -> tuple[str, ...]:
    """Return the names of the classes by index, if tables store them and the run has no class table.

    Args:
        shards: the tables, among others.
        column: the column of labels, as `data.columns.label`.
        classes: the class table of the run; empty if it has none.
        outputs: the model's number of classes; None if it is not known.

    Raises:
        ConfigError: nobody knows what the numbers mean, because the class table lacks a stored name; or there is no
            class table, and tables number their classes in different ways or have another number than the model.
    """
    found: dict[tuple[str, ...], Shard] = {}
    for shard in shards:
        if names := _stored(shard, column):
            found.setdefault(names, shard)
    if classes.names:
        for names, shard in found.items():
            places = _places(names, classes)
            if None in places and not _is_same_list(places, classes):
                unknown = [name for name, place in zip(names, places, strict=True) if place is None]
                raise _unknown(unknown, shard, classes)
        return ()
    _refuse_differences(list(found.items()), outputs)
    return next(iter(found), ())


def _stored(shard: Shard, column: str) -> tuple[str, ...]:
    """Return the names that a table stores for the numbers of its labels; empty if there are none."""
    return shard.table.names_of(label_column(shard.table, column)) if shard.table else ()


def _places(names: Sequence[str], classes: ClassTable) -> list[int | None]:
    """Return the class of each name; None where it is unknown, or the name of several classes."""
    return [classes.index(name) if name.strip().isdigit() else classes.named(name) for name in names]


def _is_same_list(places: Sequence[int | None], classes: ClassTable) -> bool:
    """Return whether names are those of the class table in its order, of which a few are written in another way."""
    known = [place == index for index, place in enumerate(places) if place is not None]
    return len(places) == len(classes.names) and all(known) and len(known) >= _SAME * len(places)


def _refuse_differences(found: Sequence[tuple[tuple[str, ...], Shard]], outputs: int | None) -> None:
    hint = "name a table of all classes in data.classes"
    if len(found) > 1:
        (one, first), (other, second) = found[:2]
        what = f"class 0 is '{one[0]}' in '{first.name}', and '{other[0]}' in '{second.name}'"
        if one[0] == other[0]:
            what = f"'{first.name}' and '{second.name}' number their classes in different ways"
        raise ConfigError.one("data.classes", what, hint)
    if found and outputs is not None and len(found[0][0]) != outputs:
        names, shard = found[0]
        what = (
            f"'{shard.name}' numbers {len(names)} classes of its own ('{names[0]}', ...), but the model has {outputs}"
        )
        raise ConfigError.one("data.classes", what, "name the table of the model's classes in data.classes")


def _unknown(names: Sequence[str], shard: Shard, classes: ClassTable) -> ConfigError:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    what = f"'{shard.name}' numbers classes of its own, and {classes.source} does not have '{names[0]}'{more}"
    guess = nearest(names[0], classes.names)
    hint = "name a table that has all of its names, or leave data.classes out"
    if classes.index(names[0]) is not None:
        what = f"'{shard.name}' numbers classes of its own, and '{names[0]}'{more} is the name of several classes"
    elif "did you mean" in guess:
        hint = f"{guess}; {hint}"
    return ConfigError.one("data.classes", what, hint)
