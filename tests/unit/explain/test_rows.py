"""The rows of a run: explanations, failed methods, failed images, and damage to shards."""

import numpy as np
import pyarrow as pa
import pytest
from reference.rows import explanation_row

from pipeline.data.decode import DecodedSample
from pipeline.data.sources.shards import Failure
from pipeline.explain.rows import ImageFacts, MethodFacts, Row, failure_row, to_table
from pipeline.maps.codec import FloatArray
from pipeline.maps.dtypes import MapDtype
from pipeline.results.query import decode_row
from schemas.explanation import ERROR_FIELDS, described, explanation_schema

IMAGE = ImageFacts("k", "s.tar", 3, 48, 64, 7, 1, 0.5, 2, "label", 0.25, -1.5)
METHOD = MethodFacts("gradcam", '{"name":"gradcam"}', "layer4")
MAP: FloatArray = np.array([[-1.0, 0.5], [0.25, 2.0]], np.float32)
SCHEMA = explanation_schema([described("drop", pa.float32(), "", "")])


def row(map_uv: FloatArray = MAP, dtype: MapDtype = "u8", **metrics: float) -> Row:
    return explanation_row(IMAGE, METHOD, map_uv, metrics, dtype)


def test_an_explanation_row_has_the_image_the_method_the_map_and_the_metrics() -> None:
    found = row(drop=0.75)
    assert found["image_key"] == "k"
    assert (found["target"], found["target_rule"], found["label"]) == (2, "label", 7)
    assert (found["method"], found["layer"]) == ("gradcam", "layer4")
    assert (found["map_height"], found["map_width"], found["map_dtype"]) == (2, 2, "u8")
    assert (found["map_min"], found["map_max"], found["degenerate"]) == (-1.0, 2.0, False)
    assert found["drop"] == 0.75
    assert "error_code" not in found


@pytest.mark.parametrize("dtype", ["u8", "f16", "f32"])
def test_the_map_of_a_row_can_be_read_back(dtype: MapDtype) -> None:
    assert np.abs(decode_row(row(dtype=dtype)) - MAP).max() <= 3 / 510 + 1e-6


def test_a_constant_map_is_marked_degenerate() -> None:
    found = row(np.full((2, 2), 0.3, np.float32))
    assert found["degenerate"] is True
    assert np.array_equal(decode_row(found), np.full((2, 2), 0.3, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_metric_that_does_not_apply_is_null(value: float) -> None:
    assert row(drop=value)["drop"] is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_a_failure_of_the_method_without_map_and_metrics(value: float) -> None:
    found = row(np.array([[0.0, value]], np.float32), drop=0.5)
    assert (found["method"], found["error_stage"], found["error_code"]) == ("gradcam", "explain", "nonfinite")
    assert found["image_key"] == "k"
    assert "map" not in found
    assert "drop" not in found


def test_the_row_of_a_failed_image_has_its_size_and_label() -> None:
    failure = Failure("k", "s.tar", "explain", "label", "label 9 of 4")
    found = failure_row(failure, 3, DecodedSample("k", 9, None, (48, 64)))
    assert (found["image_height"], found["image_width"], found["label"], found["chunk"]) == (48, 64, 9, 3)
    assert [found[field.name] for field in ERROR_FIELDS] == ["explain", "label", "label 9 of 4"]


def test_columns_that_a_row_does_not_have_are_null() -> None:
    table = to_table([failure_row(Failure("k", "s.tar", "decode", "truncated", "cut"), 0)], SCHEMA)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    (found,) = table.to_pylist()
    assert {name for name, value in found.items() if value is not None} == {
        "image_key", "shard", "chunk", "error_stage", "error_code", "error_detail"
    }  # fmt: skip


def test_the_columns_of_a_table_are_in_the_order_of_the_schema() -> None:
    table = to_table([row(drop=0.5), dict(reversed(row(drop=0.25).items()))], SCHEMA)
    assert table.column_names == SCHEMA.names
    assert table["drop"].to_pylist() == [0.5, 0.25]


def test_without_rows_the_table_is_empty() -> None:
    assert to_table([], SCHEMA).num_rows == 0


def test_decoding_a_row_needs_only_the_map_columns() -> None:
    columns = ("map", "map_height", "map_width", "map_dtype", "map_min", "map_max")
    assert decode_row({name: row()[name] for name in columns}).shape == (2, 2)
