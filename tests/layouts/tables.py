"""Tables: Parquet as people and the Hugging Face hub write it, and saved datasets."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from layouts.base import WNIDS, Truth, class_table, layout, picture, put

CLASSES = (WNIDS[4], WNIDS[1], WNIDS[9])
"""The classes of a part of the dataset, numbered in an order of its own."""


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@layout
def parquet_of_bytes(folder: Path) -> Truth:
    write(folder / "0.parquet", [{"image": picture(n), "key": f"k{n}", "label": n} for n in range(3)])
    return Truth({f"k{n}": n for n in range(3)}, {f"k{n}": n for n in range(3)})


@layout
def parquet_of_the_hub(folder: Path) -> Truth:
    write(folder / "0.parquet", [{"image": {"bytes": picture(n), "path": f"{n}.jpg"}, "label": n} for n in range(3)])
    return Truth({f"{n}.jpg": n for n in range(3)}, {f"{n}.jpg": n for n in range(3)})


@layout
def parquet_without_paths(folder: Path) -> Truth:
    write(folder / "x.parquet", [{"image": {"bytes": picture(n), "path": None}, "label": n} for n in range(2)])
    return Truth({f"x-0000000{n}": n for n in range(2)}, {f"x-0000000{n}": n for n in range(2)})


@layout
def parquet_with_a_column_img(folder: Path) -> Truth:
    """As CIFAR-10 on the hub."""
    write(folder / "x.parquet", [{"img": {"bytes": picture(0), "path": None}, "label": 5}])
    return Truth({"x-00000000": 0}, {"x-00000000": 5})


@layout
def parquet_made_from_webdataset(folder: Path) -> Truth:
    rows = [{"__key__": f"a/{n}", "jpg": {"bytes": picture(n), "path": "x.jpg"}, "cls": n} for n in range(2)]
    write(folder / "x.parquet", rows)
    return Truth({"a/0": 0, "a/1": 1}, {"a/0": 0, "a/1": 1})


@layout
def parquet_whose_labels_are_classes_by_type(folder: Path) -> Truth:
    """As `beans` on the hub, whose column is `labels`."""
    folder.mkdir()
    hub(4).rename_column("label", "labels").to_parquet(folder / "0.parquet")
    return truth_of_hub(folder, 4)


@layout
def parquet_with_a_column_of_any_name(folder: Path) -> Truth:
    write(folder / "x.parquet", [{"photo": {"bytes": picture(0), "path": "p.jpg"}, "note": "x"}])
    return Truth({"p.jpg": 0})


@layout
def parquet_of_paths(folder: Path) -> Truth:
    put(folder, {"images/a.jpg": picture(0), "images/b.jpg": picture(1)})
    write(folder / "list.parquet", [{"image": f"images/{name}.jpg", "label": 3} for name in ("a", "b", "gone")])
    keys = ("images/a.jpg", "images/b.jpg")
    data = {"shards": "{}/list.parquet"}
    return Truth(
        dict(zip(keys, (0, 1), strict=True)), dict.fromkeys(keys, 3), failed={"images/gone.jpg": "no_image"}, data=data
    )


@layout
def parquet_of_structs_with_paths_only(folder: Path) -> Truth:
    put(folder, {"a.jpg": picture(0)})
    write(folder / "list.parquet", [{"image": {"bytes": None, "path": "a.jpg"}, "label": 3}])
    return Truth({"a.jpg": 0}, {"a.jpg": 3}, data={"shards": "{}/list.parquet"})


@layout
def parquet_with_named_columns(folder: Path) -> Truth:
    write(folder / "x.parquet", [{"pixels": picture(0), "target": 8, "id": 17}])
    return Truth({"17": 0}, {"17": 8}, data={"columns": {"image": "pixels", "label": "target", "key": "id"}})


@layout
def parquet_without_images(folder: Path) -> Truth:
    write(folder / "x.parquet", [{"text": "a", "label": 1}])
    return Truth(refused="no column 'image'; its columns are text, label")


@layout
def parquet_with_a_column_that_is_not_there(folder: Path) -> Truth:
    write(folder / "x.parquet", [{"image": picture(0), "target": 1}])
    return Truth(refused="no column 'targets'.*did you mean 'target'", data={"columns": {"label": "targets"}})


def hub(count: int, first: int = 0) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    rows = {
        "image": [{"bytes": picture(first + n), "path": f"{n}.jpg"} for n in range(count)],
        "label": [n % 3 for n in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def truth_of_hub(folder: Path, count: int, first: int = 0, **data: object) -> Truth:
    labels = {f"{n}.jpg": WNIDS.index(CLASSES[n % 3]) for n in range(count)}
    return Truth({f"{n}.jpg": first + n for n in range(count)}, labels, data={**class_table(folder), **data})


@layout
def parquet_with_class_names(folder: Path) -> Truth:
    folder.mkdir()
    hub(4).to_parquet(folder / "0.parquet")
    return truth_of_hub(folder, 4)


@layout
def saved_dataset(folder: Path) -> Truth:
    hub(4).save_to_disk(folder)
    return truth_of_hub(folder, 4)


@layout
def saved_dataset_of_splits(folder: Path) -> Truth:
    datasets.DatasetDict({"train": hub(2), "test": hub(3, first=5)}).save_to_disk(folder)
    return truth_of_hub(folder, 3, 5, split="test")


@layout
def saved_dataset_of_splits_unsaid(folder: Path) -> Truth:
    datasets.DatasetDict({"train": hub(2), "test": hub(3)}).save_to_disk(folder)
    return Truth(refused="several splits: test, train")


def _clone(folder: Path) -> None:
    put(folder, {"README.md": b"---\n---\n", ".gitattributes": b"x", "data/.keep": b""})
    hub(2, first=5).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    hub(3).to_parquet(folder / "data" / "validation-00000-of-00001-0a1b2c.parquet")


@layout
def clone_of_the_hub(folder: Path) -> Truth:
    _clone(folder)
    return truth_of_hub(folder, 3, split="validation")


@layout
def clone_of_the_hub_without_a_split(folder: Path) -> Truth:
    _clone(folder)
    return Truth(refused="several splits: train .*, validation")


@layout
def clone_of_the_hub_without_its_files(folder: Path) -> Truth:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    put(folder, {"README.md": b"x", "data/train-00000-of-00001.parquet": pointer})
    return Truth(refused="git-lfs pointer.*git lfs pull")
