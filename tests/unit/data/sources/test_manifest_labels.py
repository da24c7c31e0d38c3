"""Several labels of an image, and metadata, in manifests, Parquet files and Hive folders."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import failures_of, put_images, read_all
from runfiles import SMALLEST
from tars import tar_of

from pipeline.data.annotations import read_annotations
from pipeline.data.inputs import annotations_identity, reading_of, shards_of
from pipeline.data.selection import select
from pipeline.data.sources import Item, Sample, read_shard
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.errors import ConfigError
from pipeline.settings.data import ColumnsConfig, DataConfig
from pipeline.settings.run_file import RunConfig

CHEST = ("Mass", "Nodule", "Effusion")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return put_images(tmp_path, "a.jpg", "b.jpg", "c.jpg")


def labels_in(items: list[Item]) -> dict[str, tuple[int | None, tuple[int, ...]]]:
    return {item.key: (item.label, item.labels) for item in items if isinstance(item, Sample)}


def put(root: Path, text: str) -> Path:
    (root / "list.csv").write_text(text)
    return root / "list.csv"


def read(root: Path, shards: str = "", names: tuple[str, ...] = (), **data: Any) -> list[Item]:
    """Read shards as a run does."""
    if names:
        (root / "names.txt").write_text("\n".join(names))
        data["classes"] = str(root / "names.txt")
    config = RunConfig.model_validate({**SMALLEST, "data": {"shards": str(root / shards), **data}})
    found = shards_of(config.data)
    reading = reading_of(config.data, read_annotations(config, found))
    return [item for shard in found for item in read_shard(shard, reading)]


# several labels


def test_labels_with_a_separator_as_of_nih(root: Path) -> None:
    path = put(root, "Image Index,Finding Labels\na.jpg,Mass|Nodule\nb.jpg,No Finding\nc.jpg,Effusion\n")
    assert labels_in(read_all(path, CHEST, label_separator="|")) == {
        "a.jpg": (None, (0, 1)), "b.jpg": (None, ()), "c.jpg": (2, (2,))
    }  # fmt: skip
    assert labels_in(read_all(path, (*CHEST, "No Finding"), label_separator="|"))["b.jpg"] == (3, (3,))


def test_labels_with_a_space_as_of_kaggle(root: Path) -> None:
    path = put(root, "image_name,tags\na,Mass Nodule\nb,Mass\n")
    assert labels_in(read_all(path, CHEST, label_separator=" ")) == {"a.jpg": (None, (0, 1)), "b.jpg": (0, (0,))}


@pytest.mark.parametrize("cell", ['"[0, 2]"', "\"['Mass', 'Effusion']\"", '"[""Mass"", ""Effusion""]"'])
def test_a_cell_may_be_a_list(root: Path, cell: str) -> None:
    path = put(root, f"path,labels\na.jpg,{cell}\nb.jpg,[]\n")
    assert labels_in(read_all(path, CHEST)) == {"a.jpg": (None, (0, 2)), "b.jpg": (None, ())}


def test_columns_may_each_stand_for_a_label(root: Path) -> None:
    path = put(root, "path,Mass,Nodule,Effusion\na.jpg,1,0,1.0\nb.jpg,0,-1,\nc.jpg,False,True,0\n")
    items = read(root, manifest=str(path), shards="", columns={"labels": list(CHEST)})
    assert labels_in(items) == {"a.jpg": (None, (0, 2)), "b.jpg": (None, ()), "c.jpg": (1, (1,))}


def test_a_cell_that_is_neither_yes_nor_no_is_a_wrong_row(root: Path) -> None:
    path = put(root, "path,Mass,Nodule\na.jpg,1,0\nb.jpg,2,0\n")
    with pytest.raises(ConfigError, match=r"row 3: column 'Mass' contains '2', which is neither 0 nor 1"):
        read_all(path, columns={"labels": ["Mass", "Nodule"]})


def test_a_label_that_is_no_class_is_a_failure(root: Path) -> None:
    path = put(root, "path,label\na.jpg,Mass|Gap\nb.jpg,Mass\n")
    assert failures_of(read_all(path, CHEST, label_separator="|")) == {"a.jpg": ("read", "label")}


def test_a_forgotten_separator_is_named_before_the_work(root: Path) -> None:
    put(root, "path,label\na.jpg,Mass|Nodule\nb.jpg,Mass\nc.jpg,No Finding\n")
    with pytest.raises(ConfigError, match=r"'Mass\|Nodule' is no class, but its parts are .*label_separator: \"\|\""):
        read(root, names=CHEST, manifest=str(root / "list.csv"), shards="")
    items = read(root, names=CHEST, manifest=str(root / "list.csv"), shards="", label_separator="|")
    assert labels_in(items)["a.jpg"] == (None, (0, 1))


@pytest.mark.parametrize(
    ("names", "hint"), [(("Masses", "Node"), "did you mean 'Masses'"), ((), "name the table of their names")]
)
def test_labels_that_are_mostly_no_classes_are_refused_before_the_work(
    root: Path, names: tuple[str, ...], hint: str
) -> None:
    put(root, "path,label\na.jpg,Mass\nb.jpg,Nodule\nc.jpg,1\n")
    with pytest.raises(ConfigError, match=rf"2 of 3 labels of the manifest are neither.*'Mass', 'Nodule' .*{hint}"):
        read(root, names=names, manifest=str(root / "list.csv"), shards="")


def test_parquet_holds_lists_of_labels_and_of_boxes_with_classes(root: Path) -> None:
    rows = [
        {"image": b"1", "key": "1", "label": [0, 2], "bbox": [[1.0, 2.0, 3.0, 4.0]], "names": ["Effusion"]},
        {"image": b"2", "key": "2", "label": [], "bbox": [], "names": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "p.parquet")
    columns = {"boxes": "bbox", "box_labels": "names"}
    first, second = read(root, "p.parquet", CHEST, columns=columns, boxes_format="xywh")
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (first.labels, first.boxes_xyxy, first.box_labels) == ((0, 2), ((1, 2, 4, 6),), (2,))
    assert (second.labels, second.boxes_xyxy, second.box_labels) == ((), (), ())


def test_parquet_holds_one_hot_columns_and_four_columns_of_a_box(root: Path) -> None:
    table = {"image": [b"1", b"2"], "Mass": [0, 0], "Nodule": [1, 0], "x": [1, None], "y": [2, None], "w": [3, None],
             "h": [4, None]}  # fmt: skip
    pq.write_table(pa.table(table), root / "p.parquet")
    settings = {"columns": {"labels": ["Mass", "Nodule"], "boxes": ["x", "y", "w", "h"]}, "boxes_format": "xywh"}
    first, second = read(root, "p.parquet", **settings)
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert (first.labels, first.boxes_xyxy) == ((1,), ((1, 2, 4, 6),))
    assert (second.labels, second.boxes_xyxy) == ((), None)


def test_a_label_file_with_a_separator_gives_several_labels(root: Path) -> None:
    put_images(root / "images", "a.jpg", "b.jpg", "c.jpg")
    (root / "images" / "labels.csv").write_text("filename,class_index\na.jpg,Mass|Nodule\nb.jpg,No Finding\nc,Mass\n")
    assert labels_in(read(root, "images", CHEST, label_separator="|")) == {
        "a.jpg": (None, (0, 1)), "b.jpg": (None, ()), "c.jpg": (0, (0,))
    }  # fmt: skip


def test_two_columns_of_labels_must_not_contradict_each_other(root: Path) -> None:
    path = put(root, "path,class_index,class_name\na.jpg,0,Mass\nb.jpg,1,Mass\n")
    (root / "names.txt").write_text("\n".join(CHEST))
    names = str(root / "names.txt")
    with pytest.raises(ConfigError, match=r"row 3: column 'class_index' says 1, .* but column 'class_name' says Mass"):
        shards_of(DataConfig(manifest=str(path), classes=names))
    data = DataConfig(manifest=str(path), classes=names, columns=ColumnsConfig(label="class_name"))
    assert [entry.said.label for shard in shards_of(data) for entry in shard.entries] == ["Mass", "Mass"]


def test_a_file_of_labels_must_not_contradict_the_manifest(root: Path) -> None:
    path = put(root, "path,label\na.jpg,Mass\nb.jpg,1\nc.jpg,\n")
    (root / "labels.csv").write_text("filename,class_index\na.jpg,0\nb.jpg,Nodule\nc.jpg,2\n")
    both = {"manifest": str(path), "shards": "", "labels": str(root / "labels.csv")}
    assert labels_in(read(root, names=CHEST, **both)) == {"a.jpg": (0, ()), "b.jpg": (1, ()), "c.jpg": (2, ())}
    (root / "labels.csv").write_text("filename,class_index\na.jpg,0\nb.jpg,Effusion\nc.jpg,2\n")
    expected = (
        r"'.*list.csv' and '.*labels.csv': rows contradict each other about 1 of 2 images: 'b.jpg' is 1, and also"
    )
    with pytest.raises(ConfigError, match=expected):
        read(root, names=CHEST, **both)


def test_a_column_that_is_there_twice_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"has several columns 'label' \(rename all but one of them\)"):
        read_all(put(root, "path,label,label\na.jpg,0,1\n"))


# metadata


def metadata_in(items: list[Item]) -> list[dict[str, str]]:
    return [dict(item.metadata) for item in items]


def test_further_columns_of_a_manifest_are_metadata_also_of_failures(root: Path) -> None:
    path = put(root, "path,hospital,camera,note\na.jpg,north,7,x\nmissing.jpg,south,,y\n")
    assert metadata_in(read_all(path, metadata=["hospital", "camera"])) == [
        {"hospital": "north", "camera": "7"}, {"hospital": "south"}
    ]  # fmt: skip
    assert metadata_in(read_all(path)) == [{}, {}]


def test_further_columns_of_parquet_and_members_are_metadata(root: Path) -> None:
    rows = [{"image": b"1", "hospital": "north", "camera": 7, "ok": True}, {"image": b"2", "hospital": None}]
    pq.write_table(pa.Table.from_pylist(rows), root / "p.parquet")
    wanted = {"metadata": ["hospital", "camera", "ok"]}
    expected = [{"hospital": "north", "camera": "7", "ok": "true"}, {}]
    assert metadata_in(read(root, "p.parquet", **wanted)) == expected
    members = {"a.jpg": b"1", "a.json": json.dumps(rows[0] | {"image": 0}).encode(), "b.jpg": b"2", "b.json": b"{}"}
    (root / "t.tar").write_bytes(tar_of(list(members.items())))
    assert metadata_in(read(root, "t.tar", **wanted)) == expected


def test_the_sandbox_returns_the_same_metadata(root: Path) -> None:
    rows = [{"image": b"1", "camera": 7.5, "labels": ["Mass", "Nodule"]}]
    pq.write_table(pa.Table.from_pylist(rows), root / "p.parquet")
    data = {"shards": str(root / "p.parquet"), "metadata": ["camera"], "columns": {"labels": "labels"}}
    config = RunConfig.model_validate({**SMALLEST, "data": data})
    (shard,) = shards_of(config.data)
    reading = reading_of(config.data, read_annotations(config, [shard]))
    sandbox = ParquetSandbox()
    try:
        assert list(read_shard(shard, reading, sandbox.rows)) == list(read_shard(shard, reading))
    finally:
        sandbox.close()


# Hive folders


def put_hive(root: Path) -> Path:
    for label, key in (("0", "zero"), ("2", "two"), ("__HIVE_DEFAULT_PARTITION__", "none")):
        folder = root / "hive" / f"label={label}" / "site=New%20York"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"image": [b"x"], "key": [key]}), folder / "part-0.parquet")
    return root / "hive"


@pytest.mark.parametrize("shards", ["hive", "hive/**/*.parquet", "hive/label=[02]/*/*.parquet"])
def test_hive_folders_are_columns(root: Path, shards: str) -> None:
    put_hive(root)
    items = read(root, shards, metadata=["site"])
    expected = {"zero": (0, ()), "two": (2, ()), "none": (None, ())}
    found = labels_in(items)
    assert found == {key: expected[key] for key in found}
    assert {"zero", "two"} <= found.keys()
    assert metadata_in(items) == [{"site": "New York"}] * len(items)


def test_a_column_of_the_file_wins_over_its_folder(root: Path) -> None:
    (root / "label=1").mkdir()
    pq.write_table(pa.table({"image": [b"x"], "label": [5]}), root / "label=1" / "p.parquet")
    assert [label for label, _ in labels_in(read(root, "label=1/p.parquet")).values()] == [5]


def test_the_identity_names_hive_columns_only_where_they_are_used(root: Path) -> None:
    put_hive(root)
    pq.write_table(pa.table({"image": [b"x"]}), root / "plain.parquet")
    for shards, expected in (("hive", {"hive": ["label"]}), ("plain.parquet", {})):
        config = RunConfig.model_validate({**SMALLEST, "data": {"shards": str(root / shards)}})
        assert annotations_identity(config.data, shards_of(config.data)) == expected


# samples of a manifest


def test_a_sample_and_a_limit_of_a_manifest(root: Path) -> None:
    put(root, "path,label\na.jpg,1\nb.jpg,1\nc.jpg,2\n")
    data = {"manifest": str(root / "list.csv"), "sample": {"n": 2}, "limit": 1}
    config = RunConfig.model_validate({**SMALLEST, "data": data})
    found = shards_of(config.data)
    (shard,), reading = select(config.data, found, reading_of(config.data, read_annotations(config, found)))
    assert (shard.images, shard.take, shard.held, len(shard.entries)) == (1, 1, 3, 2)
    assert [item.key for item in read_shard(shard, reading)] == [shard.entries[0].key]


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("0 0 1 0", r"this is a multi-hot vector, one number for each class; write the indices of .* here \[2\]"),
        ("3.5", "class indices are whole numbers from 0 on; correct the labels"),
    ],
)
def test_labels_of_which_no_table_has_a_name_are_told_what_they_are(root: Path, cell: str, hint: str) -> None:
    put(root, f"path,label\na.jpg,{cell}\nb.jpg,{cell}\n")
    with pytest.raises(ConfigError, match=rf"data.manifest: 2 of 2 labels .*'{cell}' \({hint}"):
        read(root, names=CHEST, manifest=str(root / "list.csv"), shards="")
