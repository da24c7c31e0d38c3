"""The methods and metrics that installed packages declare as entry points; nothing is loaded to list them."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pipeline.errors import ConfigError

METHOD_GROUP, METRIC_GROUP = "camatlas.methods", "camatlas.metrics"


@cache
def entries(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of a group by name: several where packages give the same name to different classes."""
    named = dict[str, dict[str, EntryPoint]]()
    for entry in entry_points(group=group):
        named.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: tuple(by_value.values()) for name, by_value in sorted(named.items())}


def find_entry(name: str, group: str, noun: str, registry: Mapping[str, type], where: str) -> EntryPoint | None:
    """Return the entry point of a name, None if there is none.

    Raises:
        ConfigError: more than one thing has the name.
    """
    declared = entries(group).get(name, ())
    problem = clash(name, declared, noun, registry)
    if problem:
        raise ConfigError.one(where, problem, f"write {declared[0].module}:{declared[0].attr} for that one")
    return declared[0] if declared else None


def clash(name: str, declared: tuple[EntryPoint, ...], noun: str, registry: Mapping[str, type]) -> str:
    """Say why a name of entry points cannot be used; empty if it can."""
    owners = [f"{entry.value} of {package_of(entry)}" for entry in declared]
    if declared and name in registry:
        ours = f"{registry[name].__module__}:{registry[name].__qualname__}"
        return f"'{name}' is a {noun} of camatlas ({ours}), and also {' and '.join(owners)}"
    return f"'{name}' is both {' and '.join(owners)}" if len(declared) > 1 else ""


def package_of(entry: EntryPoint) -> str:
    """Return the name and version of the package that declares an entry point."""
    return "an unknown package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
