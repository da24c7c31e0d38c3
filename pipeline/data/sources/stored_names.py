"""Names of classes that tables store for their numbers, as the library `datasets` does, beside the table of the run.

A table numbers its own classes: label 0 of a part of ImageNet is class 0 of ImageNet only by chance.
"""

from collections.abc import Iterable, Sequence

from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.columns import label_column
from pipeline.data.sources.shards import Shard
from pipeline.errors import ConfigError, nearest

_SAME = 0.9
"""Share of names in their own places from which a list as long as the class table is the same list."""


def stored(shard: Shard, column: str) -> tuple[str, ...]:
    """Return the names that a table stores for the numbers of its labels; empty if there are none."""
    return shard.table.names_of(label_column(shard.table, column)) if shard.table else ()


def names_to_read_by(shard: Shard, column: str, classes: ClassTable) -> Sequence[str]:
    """Return the names that stand for the numbers of a table; empty where a number is the index of a class already."""
    names = stored(shard, column)
    places = [_place(name, classes) for name in names]
    return () if None in places or _is_same_list(places, classes) else names


def _place(name: str, classes: ClassTable) -> int | None:
    return classes.index(name) if name.strip().isdigit() else classes.named(name)


def _is_same_list(places: Sequence[int | None], classes: ClassTable) -> bool:
    """Return whether names are those of the class table in its order; a few may be written in another way."""
    in_place = sum(place == index for index, place in enumerate(places))
    return len(places) == len(classes.names) and in_place >= _SAME * len(places)


def names_for_display(shards: Iterable[Shard], column: str, classes: ClassTable) -> tuple[str, ...]:
    """Return the names of the classes by index, if tables store them and the run has no class table.

    Raises:
        ConfigError: the class table lacks a stored name, so that nobody knows what the numbers mean; or there is no
            class table, and tables number their classes in different ways.
    """
    found: dict[tuple[str, ...], Shard] = {}
    for shard in shards:
        if names := stored(shard, column):
            found.setdefault(names, shard)
    for names, shard in found.items():
        places = [_place(name, classes) for name in names]
        if classes.names and None in places and not _is_same_list(places, classes):
            raise _unknown([name for name, place in zip(names, places, strict=True) if place is None], shard, classes)
    if len(found) > 1 and not classes.names:
        (one, first), (other, second) = list(found.items())[:2]
        what = f"class 0 is '{one[0]}' in '{first.name}', and '{other[0]}' in '{second.name}'"
        if one[0] == other[0]:
            what = f"'{first.name}' and '{second.name}' number their classes in different ways"
        raise ConfigError.one("data.classes", what, "name a table of all classes in data.classes")
    return next(iter(found), ()) if not classes.names else ()


def _unknown(names: Sequence[str], shard: Shard, classes: ClassTable) -> ConfigError:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    what = f"'{shard.name}' numbers classes of its own, and data.classes does not have '{names[0]}'{more}"
    guess = nearest(names[0], classes.names)
    hint = "name a table that has all of its names, or leave data.classes out"
    if classes.index(names[0]) is not None:
        what = f"'{shard.name}' numbers classes of its own, and '{names[0]}'{more} is the name of several classes"
    elif "did you mean" in guess:
        hint = f"{guess}; {hint}"
    return ConfigError.one("data.classes", what, hint)
