"""The Arrow schema of a part: one row per (image, target, method), or one row per failure.

Documents, SQL views and tests are derived from this file. Every field has its unit and meaning as metadata.
Rows without `error_code` are explanations. A failed image or damaged shard is one row without `method`;
a method that failed on an image is a row with `method` and without `map`.
"""

from collections.abc import Iterable, Sequence

import pyarrow as pa

SCHEMA_VERSION = 1

CURVE_SUFFIX = "_curve"
"""Suffix of metric columns that hold lists; columns that hold numbers must not have it."""

NAME_COLUMNS = {"label_name": "label", "predicted_name": "predicted", "target_name": "target"}
"""Columns of class names that the SQL views add to the rows, each with the column of the class index."""

SHARD_STAGE = "shard"
"""`error_stage` of rows that describe damage to a shard instead of an image."""


def described(
    name: str, dtype: pa.DataType, unit: str, meaning: str, *, nullable: bool = True
) -> "pa.Field[pa.DataType]":
    """Make a field with its unit and meaning as metadata."""
    return pa.field(name, dtype, nullable=nullable, metadata={"unit": unit, "meaning": meaning})


IDENTITY_FIELDS = (
    described(
        "image_key",
        pa.string(),
        "",
        "key of the image within its shard; SHARD@OFFSET for damage to a shard",
        nullable=False,
    ),
    described("shard", pa.string(), "", "name of the shard the image came from", nullable=False),
    described("chunk", pa.int32(), "", "ordinal of the chunk within its shard", nullable=False),
    described("image_height", pa.int32(), "px", "height of the upright image before resizing"),
    described("image_width", pa.int32(), "px", "width of the upright image before resizing"),
    described("label", pa.int32(), "class index", "ground-truth class, where known"),
    described(
        "predicted", pa.int32(), "class index", "class of the largest logit of the clean image; none for raw outputs"
    ),
    described("confidence", pa.float32(), "[0, 1]", "confidence of the predicted class; none for raw outputs"),
    described("target", pa.int32(), "class index", "class that is explained"),
    described("target_rule", pa.string(), "", "how the target was chosen: predicted, label, top, above or listed"),
    described("target_confidence", pa.float32(), "[0, 1]", "confidence of the target; none for raw outputs"),
    described("target_logit", pa.float32(), "logit", "pre-softmax output of the target"),
)

MAP_FIELDS = (
    described("method", pa.string(), "", "name of the CAM method within the run"),
    described("method_params", pa.string(), "JSON", "every hyper-parameter of the method"),
    described("layer", pa.string(), "", "target layer of the model"),
    described("map", pa.binary(), "", "saliency map at grid resolution, row by row, encoded as map_dtype"),
    described("map_height", pa.int32(), "cells", "rows of the map"),
    described("map_width", pa.int32(), "cells", "columns of the map"),
    described("map_dtype", pa.string(), "", "encoding of the map: u8, f16 or f32"),
    described("map_min", pa.float32(), "saliency", "smallest value of the unnormalised map"),
    described("map_max", pa.float32(), "saliency", "largest value of the unnormalised map"),
    described("degenerate", pa.bool_(), "", "the map is constant, so its heat map is all zero"),
)

ERROR_FIELDS = (
    described("error_stage", pa.string(), "", "where it failed: shard, read, decode or explain"),
    described("error_code", pa.string(), "", "what failed, from a fixed vocabulary"),
    described("error_detail", pa.string(), "", "one line for people"),
)


SOURCE_FIELDS = (
    described(
        "image_offset", pa.int64(), "bytes",
        "where the encoded image begins in its file: in the tar; 0 for a file of its own; none in compressed tars and "
        "in tables",
    ),
    described("image_bytes", pa.int64(), "bytes", "size of the encoded image"),
    described("image_row", pa.int64(), "", "row of the table (Parquet or Arrow) that holds the image, from 0"),
    described(
        "sample_offset", pa.int64(), "bytes",
        "where the first member of the image's sample begins in the tar, its header included",
    ),
    described(
        "sample_bytes", pa.int64(), "bytes",
        "length of the sample in the tar, from its first header to the last byte of its last member",
    ),
)  # fmt: skip
"""Where an image lies, so that it can be read again without its shard; null in the parts of earlier versions."""


METADATA_FIELD = described(
    "metadata", pa.map_(pa.string(), pa.string()), "", "further columns of the image, as data.metadata names them"
)


_AFTER_ERRORS = frozenset((METADATA_FIELD.name, *(field.name for field in SOURCE_FIELDS)))


def explanation_schema(
    metric_fields: Sequence["pa.Field[pa.DataType]"] = (), *, has_metadata: bool = False
) -> pa.Schema:
    """Build the schema of a run's parts: identity, map, one nullable float32 (or list) per metric, error, source.

    Args:
        metric_fields: the fields of the run's metrics, in the run's order.
        has_metadata: whether the run names further columns of its images; they come last.
    """
    last = [METADATA_FIELD] if has_metadata else []
    return pa.schema([*IDENTITY_FIELDS, *MAP_FIELDS, *metric_fields, *ERROR_FIELDS, *SOURCE_FIELDS, *last])


def is_curve(label: str) -> bool:
    """Tell from its name whether a metric's column holds lists."""
    return label.lower().endswith(CURVE_SUFFIX)


def metric_columns(labels: Iterable[str]) -> list["pa.Field[pa.DataType]"]:
    """Return the columns of metrics by their names alone, without units: float32, or a list of them for a curve."""
    return [pa.field(label, pa.list_(pa.float32()) if is_curve(label) else pa.float32()) for label in sorted(labels)]


def metric_names(schema: pa.Schema) -> list[str]:
    """List the metric columns of a part, also of an earlier version: those between the map and the error fields."""
    names: list[str] = [name for name in schema.names if name not in _AFTER_ERRORS]
    return names[len(IDENTITY_FIELDS) + len(MAP_FIELDS) : len(names) - len(ERROR_FIELDS)]


def without_source(schema: pa.Schema) -> pa.Schema:
    """Return the schema that parts of earlier versions have."""
    own = {field.name for field in SOURCE_FIELDS}
    return pa.schema([field for field in schema if field.name not in own], schema.metadata)


def with_source_fields(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a part with the columns that an earlier version did not write, at their place."""
    place = schema.get_field_index(METADATA_FIELD.name)
    for number, field in enumerate(SOURCE_FIELDS):
        if field.name not in schema.names:
            schema = schema.append(field) if place < 0 else schema.insert(place + number, field)
    return schema


def with_source(table: pa.Table) -> pa.Table:
    """Return the rows of a part with null in the columns that an earlier version did not write."""
    schema = with_source_fields(table.schema)
    if schema is table.schema or schema.equals(table.schema):
        return table
    columns = [
        table[field.name] if field.name in table.schema.names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
