"""Judges a run or packed shards against the truth; reads files with pyarrow, tarfile and Pillow alone."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
from layouts.base import Truth, number_of
from PIL import Image

COLUMNS = ["image_key", "image_width", "label", "error_code", "error_stage"]


def rows_of(run: Path) -> list[dict[str, object]]:
    """Return the rows of all parts of a run."""
    return [row for part in sorted(run.glob("*.parquet")) for row in pq.ParquetFile(part).read(COLUMNS).to_pylist()]


def faults_in_run(run: Path, boxes: Mapping[str, object], truth: Truth) -> list[str]:
    """Compare the rows of a run and the boxes that it read with the truth; there is nothing besides."""
    rows = rows_of(run)
    explained = {str(row["image_key"]): row for row in rows if row["error_code"] is None}
    failed = {str(row["image_key"]): row["error_code"] for row in rows if row["error_code"] is not None}
    pictures = {key: number_of(int(str(row["image_width"]))) for key, row in explained.items()}
    labels = {key: row["label"] for key, row in explained.items() if row["label"] is not None}
    found = {"pictures": pictures, "labels": labels, "failed": failed, "boxes": dict(boxes)}
    return [
        f"{name}: {value}, but the truth is {getattr(truth, name)}"
        for name, value in found.items()
        if value != getattr(truth, name)
    ]


def faults_in_shards(folder: Path, truth: Truth) -> list[str]:
    """Compare packed shards with the truth, picture by picture: a label belongs to the member of the same key."""
    members: dict[str, bytes] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as archive:
            for info in archive:
                file = archive.extractfile(info)
                members[info.name] = file.read() if file else b""
    annotations = (".cls", ".json")
    images = {name: data for name, data in members.items() if not name.endswith(annotations)}
    numbers = {name.rpartition(".")[0]: number_of(Image.open(io.BytesIO(data)).width) for name, data in images.items()}
    labels = {numbers[name[:-4]]: int(data) for name, data in members.items() if name.endswith(".cls")}
    boxes = {
        numbers[name[:-5]]: [tuple(box) for box in json.loads(data)["boxes"]]
        for name, data in members.items()
        if name.endswith(".json") and "boxes" in json.loads(data)
    }
    expected_labels = {truth.pictures[key]: label for key, label in truth.labels.items()}
    expected_boxes = {truth.pictures[key]: list(boxes) for key, boxes in truth.boxes.items()}
    pairs = [
        (sorted(numbers.values()), sorted(truth.pictures.values())),
        (labels, expected_labels),
        (boxes, expected_boxes),
        ({_matches(key, truth) for key in numbers}, {True}),
    ]
    return [f"{found}, but the truth is {expected}" for found, expected in pairs if found != expected]


def _matches(key: str, truth: Truth) -> bool:
    """Return whether a key is the name of a file, with or without its suffix."""
    return key in truth.pictures or key in {name.rpartition(".")[0] for name in truth.pictures}
