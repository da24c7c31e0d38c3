"""Datasets of the Hugging Face hub: saved to disk, as Parquet with class names, and clones with splits."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.annotations import form_of
from pipeline.data.inputs import reading_of, shards_of, tables_identity
from pipeline.data.sources import Item, Reading, Sample, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError
from pipeline.settings.data import ColumnsConfig, DataConfig

NAMES = ["n02", "n07"]
TABLE = ClassTable(tuple("abcdefgh"), tuple(f"n{i:02d}" for i in range(8)))


def dataset(count: int = 5, paths: bool = True) -> datasets.Dataset:
    """Return images of `datasets`, as its image folders give them."""
    rows = {
        "image": [{"bytes": b"%d" % i, "path": f"{i}.jpg" if paths else None} for i in range(count)],
        "label": [i % 2 for i in range(count)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict(rows, features=features)


def items_of(specs: str, classes: ClassTable | None = None, split: str | None = None) -> list[Item]:
    shards = list_shards(specs, split=split)
    reading = Reading(Annotations(classes or ClassTable()))
    return [item for shard in shards for item in read_shard(shard, reading)]


def found(items: list[Item]) -> list[tuple[str, bytes, int | None]]:
    assert all(isinstance(item, Sample) for item in items), items
    return [(item.key, item.image, item.label) for item in items if isinstance(item, Sample)]


EXPECTED = [(f"{i}.jpg", b"%d" % i, i % 2) for i in range(5)]


def test_a_saved_dataset_is_read_and_counted(tmp_path: Path) -> None:
    dataset().save_to_disk(tmp_path / "saved", num_shards=2)
    shards = list_shards(str(tmp_path / "saved"))
    assert [(shard.kind, shard.images) for shard in shards] == [("arrow", 3), ("arrow", 2)]
    assert found(items_of(str(tmp_path / "saved"))) == EXPECTED


def test_a_shuffled_dataset_is_saved_in_its_order(tmp_path: Path) -> None:
    dataset().select([3, 1]).save_to_disk(tmp_path / "saved")
    assert [key for key, _, _ in found(items_of(str(tmp_path / "saved")))] == ["3.jpg", "1.jpg"]


def test_an_arrow_file_with_a_footer_is_read(tmp_path: Path) -> None:
    table = pa.table({"image": [b"%d" % i for i in range(130)], "key": [f"k{i}" for i in range(130)]})
    with pa.OSFile(str(tmp_path / "a.feather"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, 50)
    assert [key for key, _, _ in found(items_of(str(tmp_path / "a.feather")))] == [f"k{i}" for i in range(130)]


@pytest.mark.parametrize("size", [0, 5, 100, -20])
def test_a_damaged_arrow_file_is_one_row(tmp_path: Path, size: int) -> None:
    dataset().save_to_disk(tmp_path / "saved")
    (path,) = (tmp_path / "saved").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:size])
    (item,) = items_of(str(path))
    assert not isinstance(item, Sample)
    assert item.stage == "shard"


def test_numbers_of_classes_are_read_by_their_names_where_the_run_knows_them(tmp_path: Path) -> None:
    dataset().to_parquet(tmp_path / "a.parquet")
    dataset().save_to_disk(tmp_path / "saved")
    for path in ("a.parquet", "saved"):
        assert [label for _, _, label in found(items_of(str(tmp_path / path), TABLE))] == [2, 7, 2, 7, 2]
        assert [label for _, _, label in found(items_of(str(tmp_path / path)))] == [0, 1, 0, 1, 0]
    other = ClassTable(("n02", "other"))
    assert [label for _, _, label in found(items_of(str(tmp_path / "a.parquet"), other))] == [0, 1, 0, 1, 0]


def test_the_identity_knows_of_keys_and_names_only_where_they_matter(tmp_path: Path) -> None:
    dataset().to_parquet(tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [b"1"], "label": [0], "key": ["a"]}), tmp_path / "b.parquet")
    new, old = DataConfig(shards=str(tmp_path / "a.parquet")), DataConfig(shards=str(tmp_path / "b.parquet"))
    assert tables_identity(new, shards_of(new), TABLE) == {"keys": "path", "label_names": [("n02", "n07")]}
    assert tables_identity(old, shards_of(old), TABLE) == {}


def test_images_without_paths_are_numbered(tmp_path: Path) -> None:
    dataset(2, paths=False).to_parquet(tmp_path / "a.parquet")
    assert [key for key, _, _ in found(items_of(str(tmp_path / "a.parquet")))] == ["a-00000000", "a-00000001"]


@pytest.mark.parametrize("column", ["img", "bytes", "jpg", "photo"])
def test_columns_of_images_are_found(tmp_path: Path, column: str) -> None:
    image = {"bytes": b"1", "path": "x.jpg"} if column == "photo" else b"1"
    pq.write_table(pa.Table.from_pylist([{column: image, "label": 3, "other": "x"}]), tmp_path / "a.parquet")
    assert [(image, label) for _, image, label in found(items_of(str(tmp_path / "a.parquet")))] == [(b"1", 3)]


@pytest.mark.parametrize("kind", ["text", "struct"])
def test_paths_beside_the_table_are_read_and_others_are_failures(tmp_path: Path, kind: str) -> None:
    (tmp_path / "d" / "images").mkdir(parents=True)
    (tmp_path / "d" / "images" / "1.jpg").write_bytes(b"1")
    (tmp_path / "secret.jpg").write_bytes(b"no")
    paths = ["images/1.jpg", "gone.jpg", "../secret.jpg", "/dev/zero", "https://host/1.jpg"]
    column = [path if kind == "text" else {"path": path, "bytes": None} for path in paths]
    pq.write_table(pa.Table.from_pylist([{"image": value} for value in column]), tmp_path / "d" / "a.parquet")
    first, *others = items_of(str(tmp_path / "d"))
    assert isinstance(first, Sample)
    assert (first.key, first.image) == ("images/1.jpg", b"1")
    details = [getattr(item, "detail", "") for item in others]
    assert [getattr(item, "code", "") for item in others] == ["no_image"] * 4
    assert "No such file" in details[0]
    assert "leaves the folder" in details[1] + details[2]
    assert "is a path" in details[3]


def test_a_missing_column_is_refused_before_the_work(tmp_path: Path) -> None:
    for name in "ab":
        pq.write_table(pa.table({"picture": [b"1"], "target": [1]}), tmp_path / f"{name}.parquet")
    with pytest.raises(
        ConfigError,
        match=r"data\.columns\.image: 'a\.parquet' and 1 more: no column 'image'; its columns are picture, target",
    ):
        shards_of(DataConfig(shards=str(tmp_path)))
    columns = ColumnsConfig(image="picture", label="targt")
    with pytest.raises(ConfigError, match=r"data\.columns\.label: .*did you mean 'target'"):
        shards_of(DataConfig(shards=str(tmp_path), columns=columns))
    assert len(shards_of(DataConfig(shards=str(tmp_path), columns=ColumnsConfig(image="picture", label="target")))) == 2


# splits


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Write a clone of a repository with three splits."""
    (tmp_path / "clone" / "data").mkdir(parents=True)
    (tmp_path / "clone" / "README.md").write_text("---\n---\n")
    for name, count in (
        ("train-00000-of-00002", 2),
        ("train-00001-of-00002", 1),
        ("validation-00000-of-00001-0a1b", 1),
    ):
        dataset(count).to_parquet(tmp_path / "clone" / "data" / f"{name}.parquet")
    return tmp_path / "clone"


@pytest.mark.parametrize(("split", "files"), [("train", 2), ("validation", 1), ("val", 1), ("training", 2)])
def test_a_split_of_a_clone_is_read(clone: Path, split: str, files: int) -> None:
    assert len(list_shards(str(clone), split=split)) == files
    assert len(list_shards(str(clone / "data"), split=split)) == files


def test_several_splits_are_never_mixed(clone: Path) -> None:
    for folder in (clone, clone / "data"):
        with pytest.raises(ConfigError, match=r"several splits: train \(2 files\), validation \(1 files\)"):
            list_shards(str(folder))
    with pytest.raises(ConfigError, match="has no split 'test', but train"):
        list_shards(str(clone), split="test")


def test_the_only_split_of_a_clone_is_read(clone: Path) -> None:
    next((clone / "data").glob("validation*")).unlink()
    assert len(list_shards(str(clone))) == 2


def test_files_of_a_clone_without_a_split_in_their_name_are_not_lost(clone: Path) -> None:
    next((clone / "data").glob("validation*")).rename(clone / "data" / "more.parquet")
    assert [shard.name for shard in list_shards(str(clone))] == [
        "more.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]


def test_a_saved_dict_of_splits_needs_a_choice(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": dataset(3), "test": dataset(2)}).save_to_disk(tmp_path / "saved")
    assert len(items_of(str(tmp_path / "saved"), split="test")) == 2
    with pytest.raises(ConfigError, match="several splits: test, train"):
        list_shards(str(tmp_path / "saved"))


@pytest.mark.parametrize("names", ['{"splits": ["../x"]}', "{}", "no json", '{"splits": []}', "[]"])
def test_a_damaged_dict_of_splits_is_named(tmp_path: Path, names: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(names)
    with pytest.raises(ConfigError, match="cannot read the splits"):
        list_shards(str(tmp_path))


@pytest.mark.parametrize("split", ["val", "validation"])
def test_folders_are_splits_too(tmp_path: Path, split: str) -> None:
    for name in ("train/cat/1.jpg", "val/cat/2.jpg", "val/dog/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (shard,) = list_shards(str(tmp_path), split=split)
    assert shard.members == ("cat/2.jpg", "dog/3.jpg")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"metadata": ["site", "camera"]}, r"data\.metadata: 'p\.parquet': no column 'site'; its columns are image, "),
        ({"columns": {"labels": ["image", "dog"]}}, r"data\.columns\.labels: 'p\.parquet': no column 'dog'"),
        ({"columns": {"boxes": "object.bbox"}}, r"data\.columns\.boxes: .*did you mean 'objects'"),
    ],
)
def test_further_columns_must_be_there_too(tmp_path: Path, data: dict[str, object], message: str) -> None:
    rows = [{"image": b"x", "objects": {"bbox": [[1, 2, 3, 4]]}, "camera": "a"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    with pytest.raises(ConfigError, match=message):
        shards_of(DataConfig.model_validate({"shards": str(tmp_path / "p.parquet"), **data}))


def test_columns_of_folders_are_there(tmp_path: Path) -> None:
    (tmp_path / "site=a" / "class=3").mkdir(parents=True)
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "site=a" / "class=3" / "p.parquet")
    data = DataConfig(shards=str(tmp_path), metadata=["site"], columns=ColumnsConfig(label="class"))
    (shard,) = shards_of(data)
    (item,) = read_shard(shard, reading_of(data, Annotations()))
    assert isinstance(item, Sample)
    assert (item.label, item.metadata) == (3, (("site", "a"),))


@pytest.mark.parametrize("saved", [False, True])
def test_fields_of_columns_are_read_beside_the_paths_of_images(tmp_path: Path, saved: bool) -> None:
    """As detection datasets of the hub: `objects` holds boxes and categories, and the keys are paths."""
    rows = {
        "image": [{"bytes": b"i", "path": f"{i}.jpg"} for i in range(2)],
        "objects": [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [i]} for i in range(2)],
    }
    if saved:
        datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "d")
    else:
        (tmp_path / "d").mkdir()
        pq.write_table(pa.table(rows), tmp_path / "d" / "p.parquet")
    columns = {"boxes": "objects.bbox", "box_labels": "objects.category", "labels": "objects.category"}
    data = DataConfig.model_validate({"shards": str(tmp_path / "d"), "boxes_format": "xywh", "columns": columns})
    (shard,) = shards_of(data)
    items = list(read_shard(shard, reading_of(data, Annotations(form=form_of(data)))))
    assert [(item.key, item.boxes_xyxy, item.box_labels) for item in items if isinstance(item, Sample)] == [
        (f"{i}.jpg", ((1.0, 2.0, 4.0, 6.0),), (i,)) for i in range(2)
    ]
