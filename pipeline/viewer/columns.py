"""The columns that the viewer filters and sorts by, with their units and meanings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from pipeline.errors import nearest
from pipeline.settings.names import sentences_in
from schemas.explanation import METADATA_FIELD, metric_names

Kind = Literal["number", "class", "text", "flag"]
KINDS: Mapping[str, Kind] = {
    "image_key": "text", "shard": "text", "label": "class", "predicted": "class", "target": "class",
    "confidence": "number", "target_confidence": "number", "target_logit": "number", "degenerate": "flag",
    "image_height": "number", "image_width": "number", "correct": "flag",
}  # fmt: skip
"""Columns of every run."""
OWN_MEANINGS = {"correct": "the predicted class is the label, or one of the labels"}
LEFT_OUT = ("map", "map_height", "map_width", "map_dtype", "map_min", "map_max", "method_params", "layer")
"""Columns that stay in the parts."""


@dataclass(frozen=True)
class Column:
    """One column: its name, what it holds, and what it means."""

    name: str
    kind: Kind
    unit: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class Columns:
    """The columns of a run, in the order in which they are offered.

    Attributes:
        known: by name.
        metrics: names of the metrics that are one number per map.
        has_metadata: whether rows have further columns.
    """

    known: Mapping[str, Column]
    metrics: tuple[str, ...]
    has_metadata: bool

    @classmethod
    def of(cls, schema: pa.Schema) -> "Columns":
        """Read the columns from the schema of the parts."""
        metrics = tuple(name for name in metric_names(schema) if pa.types.is_floating(schema.field(name).type))
        known = {name: _described(name, kind, schema) for name, kind in KINDS.items()}
        known |= {name: _described(name, "number", schema) for name in metrics}
        return cls(known, metrics, METADATA_FIELD.name in schema.names)

    @property
    def numbers(self) -> tuple[str, ...]:
        """Return the names of the columns whose ranges can be chosen."""
        return tuple(name for name, column in self.known.items() if column.kind == "number")

    def hint(self, name: str, among: Iterable[str] | None = None) -> str:
        """Suggest the column that was meant."""
        return nearest(name, self.known if among is None else among)


def narrow(schema: pa.Schema) -> list[str]:
    """Return the names of the columns that are kept in memory: all without maps and curves."""
    return [field.name for field in schema if field.name not in LEFT_OUT and not pa.types.is_list(field.type)]


def _described(name: str, kind: Kind, schema: pa.Schema) -> Column:
    found = schema.field(name).metadata or {} if name in schema.names else {}
    meaning = found.get(b"meaning", b"").decode() or OWN_MEANINGS.get(name, "")
    return Column(name, kind, found.get(b"unit", b"").decode(), _defined(meaning))


def _defined(meaning: str) -> str:
    """Say what one of our metrics measures where the schema has its name and direction alone."""
    metric, _, direction = meaning.partition(", ")
    sentence = sentences_in("metrics").get(metric)
    return f"{sentence} {direction.capitalize()}." if sentence and direction else meaning
