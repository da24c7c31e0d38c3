"""The names that pages may use: of keys, verbs, columns, methods, metrics, events and Python."""

import dataclasses
import inspect
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import camatlas
from handbook.columns import columns_of_views
from handbook.run_file import keys
from handbook.verbs import general_options, verbs
from jobs.support.event_fields import EVENTS, SESSION, WARNINGS
from pipeline.cams import ADAPTERS, METHODS
from pipeline.metrics import METRICS

ALLOWED = Path(__file__).resolve().parents[2] / "allowed_names.toml"


@dataclass(frozen=True)
class Vocabulary:
    """What exists.

    Attributes:
        root: the folder of the project, for paths.
        keys: keys of the run file, with their sections.
        verbs: the options of each verb.
        options: the options of the command itself.
        words: all words with an underscore that mean something.
        open_keys: keys that hold names of the user's.
    """

    root: Path
    keys: frozenset[str]
    verbs: dict[str, frozenset[str]]
    options: frozenset[str]
    words: frozenset[str]
    open_keys: frozenset[str] = field(default_factory=frozenset)


@cache
def vocabulary(root: Path) -> Vocabulary:
    """Collect the names of this version."""
    names = frozenset(key.name for key in keys())
    words = {*_columns(), *_parameters(), *_events(), *_public(), *_allowed()}
    words |= {part for name in names for part in name.split(".")}
    return Vocabulary(
        root=root,
        keys=names,
        verbs={verb.name: verb.options for verb in verbs()},
        options=general_options(),
        words=frozenset(words),
        open_keys=frozenset(key.name for key in keys() if key.is_open),
    )


def _columns() -> Iterator[str]:
    for view, columns in columns_of_views().items():
        yield view
        yield from (name for name, _ in columns)


def _parameters() -> Iterator[str]:
    for name, kind in (METHODS | ADAPTERS | METRICS).items():
        yield name
        yield from getattr(kind, "presets", {})
        yield from (each.name for each in dataclasses.fields(kind))


def _events() -> Iterator[str]:
    yield from SESSION
    for name, event in (EVENTS | WARNINGS).items():
        yield name
        yield from event.fields


def _public() -> Iterator[str]:
    """Yield the public names of Python, with their members and parameters."""
    for name in camatlas.__all__:
        found = getattr(camatlas, name)
        yield name
        yield from _names_inside(found)


def _names_inside(found: object) -> Iterable[str]:
    members = [found, *(getattr(found, name) for name in dir(found) if not name.startswith("_"))]
    for member in members if inspect.isclass(found) else [found]:
        if callable(member):
            yield from _signature(member)
    yield from dir(found)
    yield from inspect.get_annotations(found) if inspect.isclass(found) else ()


def _signature(member: object) -> Iterable[str]:
    try:
        return tuple(inspect.signature(member).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # classes of other libraries may have none
        return ()


def _allowed() -> Iterator[str]:
    """Yield the names of other projects and of examples, which a file lists."""
    for names in tomllib.loads(ALLOWED.read_text(encoding="utf-8")).values():
        yield from names
