"""Parquet files of encoded images: columns of any name, and damage that becomes a failure row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.sources import PARQUET_COLUMNS, Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.annotations import Annotations

ReadTable = Callable[..., list[Item]]


@pytest.fixture
def read(tmp_path: Path) -> ReadTable:
    """Write a table and read it back as a shard."""

    def read(table: pa.Table, annotations: Annotations | None = None, **columns: str) -> list[Item]:
        path = tmp_path / "part.0.parquet"
        pq.write_table(table, path)
        return read_file(path, annotations, **columns)

    return read


def read_file(path: Path, annotations: Annotations | None = None, **columns: str) -> list[Item]:
    shard = Shard(0, path.name, "parquet", str(path), 0, "")
    return list(read_shard(shard, Reading(annotations or Annotations(), PARQUET_COLUMNS | columns)))


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows)


def codes(items: list[Item]) -> list[tuple[str, str, str]]:
    return [(item.key, item.stage, item.code) for item in items if isinstance(item, Failure)]


def test_a_column_of_bytes_is_read_with_key_label_and_boxes(read: ReadTable) -> None:
    rows = [
        {"image": b"1", "key": "a", "label": 3, "boxes": [[0.0, 1.0, 2.0, 3.0]]},
        {"image": b"2", "key": "b", "label": None, "boxes": None},
        {"image": b"3", "key": "c", "label": 0, "boxes": []},
    ]
    name = "part.0.parquet"
    assert read(table(rows)) == [
        Sample("a", name, b"1", 3, ((0, 1, 2, 3),)),
        Sample("b", name, b"2", None, None),
        Sample("c", name, b"3", 0, ()),
    ]


def test_a_struct_of_bytes_and_path_is_read_with_its_path_as_key(read: ReadTable) -> None:
    items = read(table([{"image": {"bytes": b"1", "path": "x.jpg"}, "label": 5}]))
    assert items == [Sample("x.jpg", "part.0.parquet", b"1", 5, None)]


@pytest.mark.parametrize("paths", [["x.jpg", "x.jpg"], ["x.jpg", None], ["", "y.jpg"]])
def test_paths_that_are_not_all_different_are_no_keys(read: ReadTable, paths: list[str | None]) -> None:
    items = read(table([{"image": {"bytes": b"1", "path": path}} for path in paths]))
    assert [item.key for item in items] == ["part.0-00000000", "part.0-00000001"]


def test_without_a_key_column_the_key_is_the_row_number(read: ReadTable) -> None:
    items = read(table([{"image": b"%d" % i} for i in range(130)]))
    assert [item.key for item in items] == [f"part.0-{i:08d}" for i in range(130)]
    assert [item.image for item in items if isinstance(item, Sample)] == [b"%d" % i for i in range(130)]


def test_columns_may_have_other_names(read: ReadTable) -> None:
    rows = [{"img": b"1", "id": 17, "y": 2, "bbox": [[0, 0, 1, 1]], "image": "not this", "label": 99}]
    assert read(table(rows), image="img", key="id", label="y", boxes="bbox") == [
        Sample("17", "part.0.parquet", b"1", 2, ((0, 0, 1, 1),))
    ]


@pytest.mark.parametrize("dtype", [pa.large_binary(), pa.binary(), pa.dictionary(pa.int32(), pa.binary())])
def test_any_kind_of_bytes_column_is_read(read: ReadTable, dtype: pa.DataType) -> None:
    items = read(pa.table({"image": pa.array([b"1", b"2"]).cast(dtype)}))
    assert [item.image for item in items if isinstance(item, Sample)] == [b"1", b"2"]


def test_a_missing_image_column_is_one_row_for_the_shard(read: ReadTable) -> None:
    items = read(table([{"picture": b"1"}]))
    assert codes(items) == [("part.0.parquet@0", "shard", "unreadable")]
    assert "'image'" in items[0].detail


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "x.jpg"}, {"path": "x.jpg"}, "text", 7])
def test_an_image_without_bytes_fails(read: ReadTable, image: object) -> None:
    rows = [{"key": "bad", "image": image}]
    assert codes(read(table(rows))) == [("bad", "read", "no_image")]


def test_a_null_image_does_not_affect_its_neighbours(read: ReadTable) -> None:
    items = read(table([{"key": "a", "image": b"1"}, {"key": "b", "image": None}, {"key": "c", "image": b"3"}]))
    assert [item.key for item in items if isinstance(item, Sample)] == ["a", "c"]
    assert codes(items) == [("b", "read", "no_image")]


def test_a_repeated_key_is_reported_and_the_first_row_is_used(read: ReadTable) -> None:
    items = read(table([{"key": "a", "image": b"1"}, {"key": "a", "image": b"2"}, {"key": "a", "image": b"3"}]))
    assert [item.image for item in items if isinstance(item, Sample)] == [b"1"]
    assert codes(items) == [("a@1", "read", "duplicate_key"), ("a@2", "read", "duplicate_key")]


def test_a_null_key_becomes_the_row_number(read: ReadTable) -> None:
    items = read(table([{"key": "a", "image": b"1"}, {"key": None, "image": b"2"}]))
    assert [item.key for item in items] == ["a", "part.0-00000001"]


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("label", "bird", "label"),
        ("label", -2, "label"),
        ("label", 2.5, "label"),
        ("label", True, "label"),
        ("boxes", [[0, 0, 1]], "boxes"),
        ("boxes", [[float("nan"), 0, 1, 1]], "boxes"),
        ("boxes", [[2, 0, 1, 1]], "boxes"),
        ("boxes", [["x", "0", "1", "1"]], "boxes"),
        ("boxes", 7, "boxes"),
        ("boxes", [None], "boxes"),
    ],
)
def test_an_invalid_label_or_box_fails_its_image(read: ReadTable, column: str, value: object, code: str) -> None:
    assert codes(read(table([{"key": "k", "image": b"1", column: value}]))) == [("k", "read", code)]


def test_csv_files_win_over_columns(read: ReadTable) -> None:
    annotations = Annotations(labels={"k": "9"}, boxes={"k": ((0, 0, 1, 1),)})
    items = read(table([{"key": "k", "image": b"1", "label": 3, "boxes": [[5, 5, 6, 6]]}]), annotations)
    assert items == [Sample("k", "part.0.parquet", b"1", 9, ((0, 0, 1, 1),))]


def test_an_empty_table_gives_no_items(read: ReadTable) -> None:
    assert read(pa.table({"image": pa.array([], pa.binary())})) == []


def test_a_key_that_is_not_text_is_one_row_for_the_shard(read: ReadTable) -> None:
    broken = pa.array([b"\xff\xfe"]).view(pa.string())
    items = read(pa.table({"image": [b"1"], "key": broken}))
    assert codes(items) == [("part.0.parquet@0", "shard", "unreadable")]


def test_a_date_out_of_range_is_one_row_for_the_shard(read: ReadTable) -> None:
    items = read(pa.table({"image": [b"1"], "key": pa.array([2**62], pa.timestamp("us"))}))
    assert codes(items) == [("part.0.parquet@0", "shard", "unreadable")]


def test_a_missing_file_is_one_row(tmp_path: Path) -> None:
    assert codes(read_file(tmp_path / "p.parquet")) == [("p.parquet@0", "shard", "unreadable")]


def write_groups(path: Path, rows: int) -> bytes:
    """Write a file of uncompressed row groups of 64 images and return its bytes."""
    content = pa.table({"key": [f"k{i}" for i in range(rows)], "image": [bytes([i]) * 200 for i in range(rows)]})
    pq.write_table(content, path, row_group_size=64, compression="none", use_dictionary=False)
    return path.read_bytes()


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_row(tmp_path: Path, part: float) -> None:
    path = tmp_path / "p.parquet"
    data = write_groups(path, 128)
    path.write_bytes(data[: int(len(data) * part)])
    assert codes(read_file(path)) == [("p.parquet@0", "shard", "unreadable")]


def test_rows_before_a_damaged_row_group_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    data = bytearray(write_groups(path, 192))
    start = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(data)
    items = read_file(path)
    assert [item.key for item in items if isinstance(item, Sample)] == [f"k{i}" for i in range(64)]
    assert codes(items) == [("p.parquet@64", "shard", "damaged")]


def test_a_file_that_is_not_parquet_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    path.write_bytes(b"PAR1" + b"\0" * 1000 + b"PAR1")
    assert codes(read_file(path)) == [("p.parquet@0", "shard", "unreadable")]


def test_whole_float_labels_are_integers_and_nan_is_no_label(read: ReadTable) -> None:
    rows = [{"image": b"1", "label": 3.0}, {"image": b"2", "label": float("nan")}, {"image": b"3", "label": 2.5}]
    items = read(table(rows))
    assert [item.label for item in items if isinstance(item, Sample)] == [3, None]
    assert codes(items) == [("part.0-00000002", "read", "label")]
