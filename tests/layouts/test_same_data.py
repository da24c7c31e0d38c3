"""One dataset of ten classes in six containers: the same labels, and the same maps to the last bit."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts.base import FIRST_WIDTH, WNIDS, Truth, class_table, csv, picture, put, tar
from layouts.running import run_layout

NUMBERS = range(20)
IMAGES = [(f"{WNIDS[n % 10]}/{WNIDS[n % 10]}_{n}", picture(n)) for n in NUMBERS]
"""Names as in ImageNet, without suffix, and pictures."""


def folder_of_classes(folder: Path) -> None:
    put(folder, {f"{name}.JPEG": data for name, data in IMAGES})


def folder_with_a_label_file(folder: Path) -> None:
    put(folder, {f"{name.rpartition('/')[2]}.JPEG": data for name, data in IMAGES})
    rows = [(f"{name.rpartition('/')[2]}.JPEG", name.partition("/")[0]) for name, _ in IMAGES]
    put(folder, {"labels.csv": csv("filename,class_index", rows)})


def webdataset(folder: Path, mode: str = "w", suffix: str = "tar") -> None:
    members = [(f"{name}.{s}", d) for name, data in IMAGES for s, d in (("jpeg", data), ("cls", name[:9].encode()))]
    tar(folder / f"0.{suffix}", members[:20], mode)
    tar(folder / f"1.{suffix}", members[20:], mode)


def compressed(folder: Path) -> None:
    webdataset(folder, "w:gz", "tar.gz")


def rows_of_hub() -> dict[str, list[Any]]:
    """Return rows as `load_dataset("imagefolder")` makes them: classes numbered by sorted name."""
    names = sorted(WNIDS)
    return {
        "image": [{"bytes": data, "path": f"{name}.JPEG"} for name, data in IMAGES],
        "label": [names.index(name.partition("/")[0]) for name, _ in IMAGES],
    }


def saved(folder: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=sorted(WNIDS))})
    datasets.Dataset.from_dict(rows_of_hub(), features=features).save_to_disk(folder)


def parquet(folder: Path) -> None:
    folder.mkdir()
    rows = rows_of_hub() | {"label": [name.partition("/")[0] for name, _ in IMAGES]}
    pq.write_table(pa.table(rows), folder / "0.parquet")


OTHERS: list[Callable[[Path], None]] = [folder_with_a_label_file, webdataset, compressed, saved, parquet]


def rows_of(write: Callable[[Path], None], where: Path) -> dict[int, tuple[object, ...]]:
    """Return label, map and metric of each picture of a run."""
    write(where / "data")
    data = {**class_table(where / "data")}
    run_layout(where / "data", Truth(data=data), where / "run")
    found = {}
    for part in (where / "run").glob("*.parquet"):
        for row in pq.ParquetFile(part).read().to_pylist():
            values = (row["label"], row["predicted"], row["confidence"], row["map"], row["map_min"], row["map_max"])
            found[row["image_width"] - FIRST_WIDTH] = values
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[object, ...]]:
    return rows_of(folder_of_classes, tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize("write", OTHERS)
def test_every_container_gives_the_same_rows(
    write: Callable[[Path], None], expected: dict[int, tuple[object, ...]], tmp_path: Path
) -> None:
    assert [expected[n][0] for n in NUMBERS] == [n % 10 for n in NUMBERS]
    assert rows_of(write, tmp_path) == expected


def test_the_tars_are_what_tar_reads(tmp_path: Path) -> None:
    compressed(tmp_path / "data")
    with tarfile.open(tmp_path / "data" / "0.tar.gz") as archive:
        assert len(archive.getnames()) == 20
