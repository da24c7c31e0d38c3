"""One dataset of ten classes in eight containers: the same labels, metrics and maps, to the last bit."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inline import publish_all
from layouts.base import FIRST_WIDTH, WNIDS, Box, Truth, class_table, csv, picture, put, tar
from layouts.running import fields_of

NUMBERS = range(20)
IMAGES = [(f"{WNIDS[n % 10]}/{WNIDS[n % 10]}_{n}", picture(n)) for n in NUMBERS]
"""Names as in ImageNet, without suffix, and pictures."""
METRICS = ["average_drop", "pointing_game", "energy_in_box", "box_removed_confidence"]
Data = dict[str, Any]


def box(number: int) -> Box:
    return (1 + number % 5, 2, 20 + number % 7, 30.5)


def base(name: str) -> str:
    return name.rpartition("/")[2]


def put_boxes(folder: Path) -> None:
    rows = [(f"{base(name)}.JPEG", *box(number)) for number, (name, _) in enumerate(IMAGES)]
    put(folder, {"boxes.csv": csv("filename,x0,y0,x1,y1", rows)})


def folder_of_classes(folder: Path) -> Data:
    put(folder, {f"{name}.JPEG": data for name, data in IMAGES})
    put_boxes(folder)
    return {}


def folder_with_a_label_file(folder: Path) -> Data:
    put(folder, {f"{base(name)}.JPEG": data for name, data in IMAGES})
    put(
        folder,
        {"labels.csv": csv("filename,class_index", [(f"{base(n)}.JPEG", n.partition("/")[0]) for n, _ in IMAGES])},
    )
    put_boxes(folder)
    return {}


def kaggle_list(folder: Path) -> Data:
    put(folder, {f"{base(name)}.JPEG": data for name, data in IMAGES})
    rows = [
        (base(name), " ".join(map(str, (name.partition("/")[0], *box(number)))))
        for number, (name, _) in enumerate(IMAGES)
    ]
    path = folder.parent / "LOC_val_solution.csv"
    path.write_bytes(csv("ImageId,PredictionString", rows))
    return {"boxes": str(path)}


def manifest_of_absolute_paths(folder: Path) -> Data:
    places = [folder / f"disk{number % 3}" / f"{base(name)}.JPEG" for number, (name, _) in enumerate(IMAGES)]
    for place, (_, data) in zip(places, IMAGES, strict=True):
        put(place.parent, {place.name: data})
    rows = [
        (place, name.partition("/")[0], *box(n))
        for n, (place, (name, _)) in enumerate(zip(places, IMAGES, strict=True))
    ]
    (folder / "list.csv").write_bytes(csv("path,label,x0,y0,x1,y1", rows))
    return {"shards": None, "manifest": str(folder / "list.csv")}


def webdataset(folder: Path, mode: str = "w", suffix: str = "tar") -> Data:
    members = [
        (f"{name}.{kind}", data)
        for number, (name, image) in enumerate(IMAGES)
        for kind, data in (
            ("jpeg", image), ("cls", name[:9].encode()), ("json", json.dumps({"boxes": [box(number)]}).encode()),
        )
    ]  # fmt: skip
    tar(folder / f"0.{suffix}", members[:30], mode)
    tar(folder / f"1.{suffix}", members[30:], mode)
    return {}


def compressed(folder: Path) -> Data:
    return webdataset(folder, "w:gz", "tar.gz")


def rows_of_hub() -> dict[str, list[Any]]:
    """Return rows as `load_dataset("imagefolder")` makes them: classes numbered by sorted name."""
    names = sorted(WNIDS)
    return {
        "image": [{"bytes": data, "path": f"{name}.JPEG"} for name, data in IMAGES],
        "label": [names.index(name.partition("/")[0]) for name, _ in IMAGES],
        "boxes": [[list(box(number))] for number in NUMBERS],
    }


def saved(folder: Path) -> Data:
    boxes = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
    label = datasets.ClassLabel(names=sorted(WNIDS))
    features = datasets.Features({"image": datasets.Image(), "label": label, "boxes": boxes})
    datasets.Dataset.from_dict(rows_of_hub(), features=features).save_to_disk(folder)
    return {}


def parquet(folder: Path) -> Data:
    folder.mkdir()
    rows = rows_of_hub() | {"label": [name.partition("/")[0] for name, _ in IMAGES]}
    pq.write_table(pa.table(rows), folder / "0.parquet")
    return {}


OTHERS: list[Callable[[Path], Data]] = [
    folder_with_a_label_file, kaggle_list, manifest_of_absolute_paths, webdataset, compressed, saved, parquet,
]  # fmt: skip


def rows_of(write: Callable[[Path], Data], where: Path) -> dict[int, tuple[object, ...]]:
    """Return label, map and metrics of each picture of a run."""
    data = write(where / "data") | class_table(where / "data")
    fields = fields_of(where / "data", Truth(data=data), where / "run")
    fields["explain"] |= {"metrics": METRICS, "targets": "label"}
    publish_all(fields)
    found = {}
    names = ("label", "predicted", "confidence", "map", "map_min", "map_max", *METRICS)
    for part in (where / "run").glob("*.parquet"):
        for row in pq.ParquetFile(part).read().to_pylist():
            found[row["image_width"] - FIRST_WIDTH] = tuple(row[name] for name in names)
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[object, ...]]:
    return rows_of(folder_of_classes, tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize("write", OTHERS)
def test_every_container_gives_the_same_rows(
    write: Callable[[Path], Data], expected: dict[int, tuple[object, ...]], tmp_path: Path
) -> None:
    assert [expected[n][0] for n in NUMBERS] == [n % 10 for n in NUMBERS]
    assert None not in expected[0]
    assert rows_of(write, tmp_path) == expected


def test_the_tars_are_what_tar_reads(tmp_path: Path) -> None:
    compressed(tmp_path / "data")
    with tarfile.open(tmp_path / "data" / "0.tar.gz") as archive:
        assert len(archive.getnames()) == 30
