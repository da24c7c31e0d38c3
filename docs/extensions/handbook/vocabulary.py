"""The names that pages may use: of keys, verbs, columns, methods, metrics, events and Python."""

import dataclasses
import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import camatlas
from handbook.columns import columns_of_views
from handbook.json_types import Schema, alternatives
from handbook.run_file import keys, schema_of_run_file
from handbook.verbs import general_options, verbs
from jobs.support.event_fields import EVENTS, SESSION, WARNINGS
from jobs.support.watch import WORKER_DIED
from pipeline.cams import ADAPTERS, METHODS
from pipeline.explain.plugged import METHOD_ERROR, METRIC_ERROR
from pipeline.metrics import METRICS
from pipeline.results.views import MAP_VALUES
from pipeline.telemetry import prometheus

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
    words = {*_columns(), *_parameters(), *_values_of_keys(), *_events(), *_codes(), *_public(), *_allowed()}
    words |= {part for name in names for part in name.split(".")}
    return Vocabulary(
        root=root,
        keys=names,
        verbs={verb.name: verb.options for verb in verbs()},
        options=general_options(),
        words=frozenset(words),
        open_keys=frozenset(key.name for key in keys() if key.is_open),
    )


def _values_of_keys() -> Iterator[str]:
    """Yield the words that keys of the run file take."""
    definitions = schema_of_run_file().get("$defs", {})
    for key in keys():
        yield from _words_of(key.schema, definitions)


def _words_of(schema: Schema, definitions: Schema) -> Iterator[str]:
    """Yield the words that a value may be."""
    for choice in alternatives(schema, definitions):
        yield from (str(value) for value in (*choice.get("enum", ()), choice.get("const", "")))


def _columns() -> Iterator[str]:
    yield from re.findall(r"MACRO (\w+)", " ".join(MAP_VALUES))
    for view, columns in columns_of_views().items():
        yield view
        yield from (name for name, _ in columns)


def _parameters() -> Iterator[str]:
    kinds: dict[str, type[Any]] = METHODS | ADAPTERS | METRICS
    for name, kind in kinds.items():
        yield name
        yield from getattr(kind, "presets", {})
        yield from (each.name for each in dataclasses.fields(kind))
        schema = TypeAdapter(kind).json_schema()
        for values in schema["properties"].values():
            yield from _words_of(values, schema.get("$defs", {}))


def _events() -> Iterator[str]:
    yield from SESSION
    for name, event in (EVENTS | WARNINGS).items():
        yield name
        yield from event.fields


def _codes() -> Iterator[str]:
    """Yield codes of failures, and the names of counters as Prometheus shows them."""
    yield from (METHOD_ERROR, METRIC_ERROR, WORKER_DIED)
    for name in re.findall(r'"(camatlas_\w+)"', inspect.getsource(prometheus)):
        yield from (name, f"ray_{name}", f"ray_{name}_total")


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
