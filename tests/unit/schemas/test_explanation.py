"""The schema of a part: every column is described, and metrics are between map and error."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.metrics import METRICS, build_metrics, metric_fields
from schemas.explanation import (
    ERROR_FIELDS,
    IDENTITY_FIELDS,
    MAP_FIELDS,
    SCHEMA_VERSION,
    SOURCE_FIELDS,
    described,
    explanation_schema,
    is_curve,
    metric_names,
)

METRIC_FIELDS = metric_fields(build_metrics(list(METRICS)))
SCHEMA = explanation_schema(METRIC_FIELDS)


@pytest.mark.parametrize("name", SCHEMA.names)
def test_every_column_has_a_unit_and_a_meaning(name: str) -> None:
    metadata = SCHEMA.field(name).metadata
    assert set(metadata) == {b"unit", b"meaning"}
    assert metadata[b"meaning"]


@pytest.mark.parametrize("field", METRIC_FIELDS, ids=lambda field: field.name)
def test_every_metric_has_a_unit_and_a_direction(field: "pa.Field[pa.DataType]") -> None:
    assert field.type == (pa.list_(pa.float32()) if is_curve(field.name) else pa.float32())
    assert field.nullable
    assert field.metadata[b"unit"]
    ends = (", higher is better", ", lower is better", ", neither direction is better")
    assert field.metadata[b"meaning"].decode().endswith(ends)


def test_the_metrics_are_between_the_map_and_the_error() -> None:
    expected = [field.name for field in (*IDENTITY_FIELDS, *MAP_FIELDS, *METRIC_FIELDS, *ERROR_FIELDS, *SOURCE_FIELDS)]
    assert SCHEMA.names == expected


def test_metric_names_are_read_from_a_schema() -> None:
    assert metric_names(SCHEMA) == sorted(METRICS)
    assert metric_names(explanation_schema()) == []


def test_metric_columns_do_not_depend_on_the_order_in_the_run_file() -> None:
    turned = metric_fields(build_metrics(list(reversed(METRICS))))
    assert explanation_schema(turned).equals(SCHEMA, check_metadata=True)


def test_no_column_name_is_used_twice() -> None:
    assert len(set(SCHEMA.names)) == len(SCHEMA.names)


def test_only_key_shard_and_chunk_are_not_nullable() -> None:
    assert [field.name for field in SCHEMA if not field.nullable] == ["image_key", "shard", "chunk"]


def test_a_schema_survives_the_parquet_file_with_its_descriptions() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(SCHEMA.empty_table(), sink)
    read = pq.read_schema(pa.BufferReader(sink.getvalue()))
    assert read.equals(SCHEMA, check_metadata=False)
    assert read.field("map_min").metadata[b"meaning"] == SCHEMA.field("map_min").metadata[b"meaning"]


def test_a_field_has_its_unit_and_meaning() -> None:
    field = described("length", pa.int32(), "px", "how long", nullable=False)
    assert (field.name, field.type, field.nullable) == ("length", pa.int32(), False)
    assert field.metadata == {b"unit": b"px", b"meaning": b"how long"}


def test_the_columns_of_this_schema_version() -> None:
    """Other columns need another version: raise SCHEMA_VERSION together with this list.

    Those of the source came without one, since it is part of the run id: they may be null, and readers add them.
    """
    assert SCHEMA_VERSION == 1
    assert explanation_schema().names == [
        "image_key", "shard", "chunk", "image_height", "image_width", "label", "predicted", "confidence", "target",
        "target_rule", "target_confidence", "target_logit", "method", "method_params", "layer", "map", "map_height",
        "map_width", "map_dtype", "map_min", "map_max", "degenerate", "error_stage", "error_code", "error_detail",
        "image_offset", "image_bytes", "image_row", "sample_offset", "sample_bytes",
    ]  # fmt: skip
