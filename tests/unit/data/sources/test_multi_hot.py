"""Multi-hot vectors are refused wherever a list of classes is expected; lists of indices are read as they are."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import put_images, read_all

from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.box_formats import BadAnnotationError, Form
from pipeline.data.sources.cells import labels_cell
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.columns import DEFAULT_COLUMNS
from pipeline.data.sources.label_files import load_annotations
from pipeline.errors import ConfigError

WORDS = r"is a multi-hot vector, one number for each class; write the indices of the classes, each once, here \[2\]"
VECTORS = [[0, 0, 1, 0], [False, False, True, False], [0.0, 0.0, 1.0, 0.0], ["0", "0", "1", "0"], [0, -1, 1, -1]]
LISTS = [[0, 1], [1, 0], [0], [2, 0, 2], [3, 1, -1, -1], [0, 1, -1], [], [-1, -1], ["red", "red"], [1.0, 0.0]]


def in_tar(shard: Shard, fields: dict[str, object], annotations: Annotations | None = None) -> Item:
    return annotated("k", shard, b"i", {"json": json.dumps(fields).encode()}, annotations or Annotations())


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_vector_in_the_json_of_a_tar_fails_the_image(shard: Shard, vector: list[object]) -> None:
    item = in_tar(shard, {"labels": vector})
    assert isinstance(item, Failure)
    assert item.code == "label"
    assert "is a multi-hot vector, one number for each class; write the indices" in item.detail
    assert "here [2]" in item.detail


@pytest.mark.parametrize("cells", LISTS, ids=str)
def test_lists_of_classes_are_no_vectors(cells: list[object]) -> None:
    labels_cell(cells, None)


@pytest.mark.parametrize("field", ["label", "labels"])
@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_vector_in_json_lines_is_refused_with_its_row(tmp_path: Path, field: str, vector: list[object]) -> None:
    put_images(tmp_path, "a.jpg", "b.jpg")
    rows = [{"path": "a.jpg", field: [3]}, {"path": "b.jpg", field: vector}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigError, match=rf"1 of 2 rows of .* are wrong: row 2: \[.*\] {WORDS}"):
        read_all(tmp_path / "list.jsonl")


@pytest.mark.parametrize("cell", ['"[0, 0, 1, 0]"', "[0 0 1 0]", "[0. 0. 1. 0.]", '"[False, False, True, False]"'])
def test_a_vector_in_a_cell_of_a_csv_is_refused(tmp_path: Path, cell: str) -> None:
    put_images(tmp_path, "a.jpg")
    (tmp_path / "list.csv").write_text(f"path,labels\na.jpg,{cell}\n")
    with pytest.raises(ConfigError, match=WORDS):
        read_all(tmp_path / "list.csv")


def test_a_vector_with_a_separator_is_refused_in_a_manifest_and_in_a_label_file(tmp_path: Path) -> None:
    put_images(tmp_path, "a.jpg")
    (tmp_path / "list.csv").write_text("path,label\na.jpg,0 0 1 0\n")
    with pytest.raises(ConfigError, match=WORDS):
        read_all(tmp_path / "list.csv", label_separator=" ")
    (tmp_path / "labels.csv").write_text("filename,class_index\na.jpg,0|0|1|0\nb.jpg,2|3\n")
    with pytest.raises(ConfigError, match=rf"data.labels: 1 of 2 rows .*'a.jpg': \[0, 0, 1, 0\] {WORDS}"):
        load_annotations(str(tmp_path / "labels.csv"), None, ClassTable(), Form(separator="|"))


@pytest.mark.parametrize("text", ["0 0 1 0", "[0, 0, 1, 0]", "0,0,1,0"])
def test_a_vector_as_one_label_says_what_it_is(shard: Shard, text: str) -> None:
    for item in (in_tar(shard, {"label": text}), in_tar(shard, {}, Annotations(labels={"k": text}))):
        assert isinstance(item, Failure)
        assert "is a multi-hot vector" in item.detail


@pytest.mark.parametrize("kind", [pa.list_(pa.int64(), 4), pa.list_(pa.float32()), pa.list_(pa.bool_())], ids=str)
def test_a_vector_in_a_parquet_column_fails_the_image(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([[0, 0, 1, 0]]).cast(pa.list_(pa.int8())).cast(kind)
    pq.write_table(pa.table({"image": [b"1"], "label": values}), tmp_path / "p.parquet")
    shard = Shard(0, "p.parquet", "parquet", str(tmp_path / "p.parquet"), 0, "")
    (item,) = read_shard(shard, Reading(Annotations(), dict(DEFAULT_COLUMNS)))
    assert isinstance(item, Failure)
    assert (item.code, "is a multi-hot vector" in item.detail) == ("label", True)


def test_a_list_with_a_class_for_each_box_may_repeat_classes(shard: Shard) -> None:
    boxes = [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]]
    item = in_tar(shard, {"labels": [0, 0, 1], "boxes": boxes, "box_labels": [0, 0, 1]})
    assert isinstance(item, Sample)
    assert (item.labels, item.box_labels) == ((0, 1), (0, 0, 1))
    with pytest.raises(BadAnnotationError):
        labels_cell([0, 0, 1], None, [0, 1, 1])
    assert labels_cell([0, 0, 1], None, [0, 0, 1]) == ("0", "1")


@pytest.mark.parametrize("pair", [[0, 1], [1, 0], [1.0, 0.0]])
def test_a_pair_is_refused_only_where_it_is_doubtful(shard: Shard, pair: list[float]) -> None:
    doubting = Annotations(doubts_pairs=True)
    item = in_tar(shard, {"labels": pair}, doubting)
    assert isinstance(item, Failure)
    assert f"write [{pair.index(1)}] if it is a vector" in item.detail
    sure = in_tar(shard, {"labels": pair}, replace(doubting, doubts_pairs=False))
    assert isinstance(sure, Sample)
    assert set(sure.labels) == {0, 1}
    assert isinstance(in_tar(shard, {"labels": [1]}, doubting), Sample)
    named = in_tar(shard, {"labels": ["cat", "dog"]}, replace(doubting, classes=ClassTable(("cat", "dog"))))
    assert isinstance(named, Sample)


@pytest.mark.parametrize("label", [[2.0], [2.0, 3], [2.0, 2]])
def test_whole_floats_in_lists_are_indices(shard: Shard, label: list[float]) -> None:
    item = in_tar(shard, {"labels": label})
    assert isinstance(item, Sample)
    assert item.labels == tuple(dict.fromkeys(map(int, label)))
    broken = in_tar(shard, {"labels": [1, 2.5]})
    assert isinstance(broken, Failure)
    assert broken.detail == "labels contains 2.5, which is no whole number and so no class index"
