"""Finds the columns of tables: the image under its usual names, the key, and names of classes, from the schema."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import ConfigError, nearest

Columns = dict[str, Any]
"""Names of columns by role; several names for the boxes, labels or metadata that several columns hold."""
DEFAULT_COLUMNS: Columns = {"image": "image", "key": "key", "label": "label", "boxes": "boxes"}
_IMAGES = ("img", "bytes", "jpg", "jpeg", "png", "webp", "image_bytes")
"""Columns that may hold the image if there is none of the name `image`, by precedence."""
_KEYS = ("__key__",)
_LABELS = ("cls",)
"""The column in which tables made from webdataset keep labels."""
_MOST_SHOWN = 20


@dataclass(frozen=True)
class TableFacts:
    """What is known of a table before its rows are read.

    Attributes:
        columns: (name, type) of each column.
        label_names: names of the classes of integer columns, by column, as the library `datasets` stores them.
    """

    columns: tuple[tuple[str, str], ...] = ()
    label_names: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def names_of(self, column: str) -> tuple[str, ...]:
        """Return the names of the classes that a column numbers; empty if none are stored."""
        return dict(self.label_names).get(column, ())


@dataclass(frozen=True)
class ImageColumn:
    """Where the image is: a column of bytes or of paths, or a struct with a field `bytes`, a field `path` or both."""

    name: str
    has_bytes: bool
    has_path: bool


def facts_of(schema: pa.Schema) -> TableFacts:
    """Return the columns and the class names of a schema."""
    columns = tuple((field.name, str(field.type)[:80]) for field in schema)
    return TableFacts(columns, tuple(_label_names(schema).items()))


def image_column(schema: pa.Schema, wanted: str) -> ImageColumn:
    """Find the column of images: the wanted one, or, if the run file names none, one of a usual name or type.

    Raises:
        ValueError: there is none; the message lists the columns.
    """
    name = wanted if wanted in schema.names else None
    if name is None and wanted == DEFAULT_COLUMNS["image"]:
        structs = [field.name for field in schema if _field_names(field.type) & {"bytes", "path"} == {"bytes", "path"}]
        usual = [name for name in _IMAGES if name in schema.names]
        name = usual[0] if usual else structs[0] if len(structs) == 1 else None
    if name is None:
        raise ValueError(f"no column '{wanted}'; its columns are {_listed(schema.names)}")
    kind = schema.field(name).type
    fields = _field_names(kind)
    is_path = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return ImageColumn(name, "bytes" in fields or not (fields or is_path), "path" in fields or is_path)


def key_column(schema: pa.Schema, wanted: str) -> str | None:
    """Return the column of keys, also under its usual names; None if there is none."""
    candidates = (wanted, *_KEYS) if wanted == DEFAULT_COLUMNS["key"] else (wanted,)
    return next((name for name in candidates if name in schema.names), None)


def names_of(names: str | list[str]) -> list[str]:
    """Return the names of the columns of one role."""
    return [names] if isinstance(names, str) else names


def has_path_keys(table: TableFacts, columns: Mapping[str, Any]) -> bool:
    """Return whether images of a table may have their paths as keys: no column has keys, and the image has a path."""
    kinds = dict(table.columns)
    if columns["key"] in kinds or (columns["key"] == DEFAULT_COLUMNS["key"] and set(_KEYS) & set(kinds)):
        return False
    structs = [kind for kind in kinds.values() if kind.startswith("struct<")]
    image = kinds.get(columns["image"]) or (structs[0] if len(structs) == 1 else "")
    return "path: " in image or image in ("string", "large_string")


def label_column(table: TableFacts, wanted: str) -> str:
    """Return the column of labels: the wanted one, or, if none is named, the only one that numbers classes."""
    names = [name for name, _ in table.columns]
    if wanted in names or wanted != DEFAULT_COLUMNS["label"]:
        return wanted
    numbered = [column for column, _ in table.label_names if column in names]
    if len(numbered) == 1:
        return numbered[0]
    return next((name for name, kind in table.columns if name in _LABELS and kind.startswith("int")), wanted)


def check_columns(facts: Mapping[str, TableFacts], columns: Columns) -> None:
    """Check that each table has the columns that the run file names, and images.

    Args:
        facts: what is known of the tables, by the names of their shards.
        columns: the names of `image`, `key`, `label`, `boxes`, and of further roles that the run file names.

    Raises:
        ConfigError: columns are missing; one mistake for each column, with what the first such table has.
    """
    lacking: dict[tuple[str, str], list[str]] = {}
    for shard, table in facts.items():
        for missing in _missing(table, columns):
            lacking.setdefault(missing, []).append(shard)
    mistakes = [ConfigError.one(*_lacking(*missing, shards, facts[shards[0]])) for missing, shards in lacking.items()]
    if mistakes:
        raise ConfigError(mistake for error in mistakes for mistake in error.mistakes)


def _missing(table: TableFacts, columns: Columns) -> list[tuple[str, str]]:
    """Return the role and the name of each column that a table lacks; a name with dots is a field of a column."""
    names = [name for name, _ in table.columns]
    structs = [name for name, kind in table.columns if kind.startswith("struct<") and "bytes: " in kind]
    wanted = [(role, name) for role, one in columns.items() for name in names_of(one)]
    missing = [
        (role, name)
        for role, name in wanted
        if name not in (DEFAULT_COLUMNS.get(role), *names) and name.partition(".")[0] not in names
    ]
    has_image = columns["image"] in names or bool({*_IMAGES} & {*names}) or len(structs) == 1
    no_image = ("image", columns["image"])
    return [no_image, *missing] if not has_image and no_image not in missing else missing


def _lacking(role: str, wanted: str, shards: list[str], table: TableFacts) -> tuple[str, str, str]:
    names = [name for name, _ in table.columns]
    others = f" and {len(shards) - 1} more" if len(shards) > 1 else ""
    what = f"'{shards[0]}'{others}: no column '{wanted}'; its columns are {_listed(names)}"
    shown = nearest(wanted, names)
    if role == "metadata":
        return "data.metadata", what, shown if "did you mean" in shown else "name columns of the table"
    return f"data.columns.{role}", what, shown if "did you mean" in shown else f"data.columns: {{{role}: NAME}}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more


def _field_names(kind: pa.DataType) -> set[str]:
    return {kind.field(i).name for i in range(kind.num_fields)} if pa.types.is_struct(kind) else set()


def _label_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Read the class names that the library `datasets` writes into a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def all_different(values: Iterable[object]) -> bool:
    """Return whether no value is missing, empty or repeated."""
    counts = Counter(values)
    return bool(counts) and None not in counts and "" not in counts and max(counts.values()) == 1
