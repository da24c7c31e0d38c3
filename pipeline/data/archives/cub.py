"""CUB-200-2011 as published: the folder `CUB_200_2011` with images, and tables that refer to them by number."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.data.archives.base import (
    Archive,
    Problems,
    checked_box,
    duplicates,
    image_problem,
    read_table,
    require,
)
from pipeline.data.sources.box_formats import parse_box
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.shards import Sample, Shard
from pipeline.errors import ConfigError

_NUMBER = r"(\d{1,9})"
_NAME = r"[^\s./\\\x00-\x1f][^\s/\\\x00-\x1f]*"
_TABLES = {
    "images.txt": rf"{_NUMBER}\s+({_NAME}/{_NAME}\.jpg)",
    "image_class_labels.txt": rf"{_NUMBER}\s+{_NUMBER}",
    "bounding_boxes.txt": rf"{_NUMBER}\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)",
    "train_test_split.txt": rf"{_NUMBER}\s+([01])",
}
"""Line patterns of the tables. Each line begins with an image number; file names cannot leave their folder."""

_IS_TRAIN = {"test": ("0",), "train": ("1",), "all": ("0", "1")}

Row = Sequence[str]


def read_cub(source: Path, split: str | None) -> Archive:
    """Read one split (test, train or all) of CUB-200-2011.

    In the archive, classes are numbered from 1 (here from 0) and a box is left, top, width, height.

    Args:
        source: the folder CUB_200_2011, or its parent.
        split: None means test.

    Raises:
        ConfigError: files of the archive are missing, invalid or contradict each other.
    """
    wanted = split or "test"
    if wanted not in _IS_TRAIN:
        raise ConfigError.one("--split", f"'{wanted}' is not a split", "choose test, train or all")
    root = source / "CUB_200_2011" if (source / "CUB_200_2011").is_dir() else source
    problems = Problems()
    folders = _classes(require(root, "classes.txt"), source, problems)
    tables = {name: _by_number(require(root, name), source, pattern, problems) for name, pattern in _TABLES.items()}
    _check_numbers(root, tables, problems)
    samples = {
        row[0]: _sample(number, root, source, folders, tables, problems)
        for number, row in tables["images.txt"].items()
        if tables["train_test_split.txt"].get(number, ("",))[0] in _IS_TRAIN[wanted]
    }
    if not samples:
        problems.add(root / "train_test_split.txt", f"lists no image of the split '{wanted}'")
    problems.raise_if_any()
    images = root / "images"
    shard = Shard(0, images.name, "folder", str(images), 0, "", len(samples), members=tuple(samples))
    return Archive(shard, samples, ClassTable(tuple(map(_class_name, folders))))


def _classes(path: Path, source: Path, problems: Problems) -> list[str]:
    """Read the class folders, which must be numbered from 1 without gaps."""
    rows = list(read_table(path, source, rf"{_NUMBER}\s+({_NAME})", problems))
    if [int(number) for number, _ in rows] != list(range(1, len(rows) + 1)) or not rows:
        problems.add(path, "does not number its classes 1, 2, 3, ...")
    return [name for _, name in rows]


def _class_name(folder: str) -> str:
    """Return the readable name of a class: `004.Groove_billed_Ani` becomes Groove billed Ani."""
    number, dot, name = folder.partition(".")
    return (name if dot and number.isdigit() else folder).replace("_", " ")


def _by_number(path: Path, source: Path, pattern: str, problems: Problems) -> dict[str, Row]:
    """Read the rows of a table by image number."""
    rows = [(number, rest) for number, *rest in read_table(path, source, pattern, problems)]
    for number in duplicates(number for number, _ in rows):
        problems.add(path, "lists images twice", number)
    return dict(rows)


def _check_numbers(root: Path, tables: Mapping[str, Mapping[str, Row]], problems: Problems) -> None:
    """Check that all tables list the same images, and that no file has two numbers."""
    images = tables["images.txt"]
    for name, rows in tables.items():
        for number in sorted(images.keys() - rows.keys(), key=int):
            problems.add(root / name, "has no rows for images of images.txt, by number", number)
        for number in sorted(rows.keys() - images.keys(), key=int):
            problems.add(root / name, "has rows for images that are not in images.txt, by number", number)
    for name in duplicates(row[0] for row in images.values()):
        problems.add(root / "images.txt", "lists files twice", name)


def _sample(
    number: str,
    root: Path,
    source: Path,
    folders: Sequence[str],
    tables: Mapping[str, Mapping[str, Row]],
    problems: Problems,
) -> Sample:
    """Combine the rows of all tables for one image."""
    (name,) = tables["images.txt"][number]
    problem = image_problem(root / "images" / name, source)
    if problem:
        problems.add(root / "images", problem, name)
    labels = root / "image_class_labels.txt"
    label = int(tables["image_class_labels.txt"].get(number, ("1",))[0]) - 1
    if not 0 <= label < len(folders):
        problems.add(labels, "uses classes that are not in classes.txt", f"image {number}")
    elif folders[label] != name.partition("/")[0]:
        problems.add(labels, "contradicts the folders of images", f"{name} is {folders[label]}")
    x, y, width, height = parse_box(tables["bounding_boxes.txt"].get(number, ("0", "0", "1", "1")))
    box = checked_box((x, y, x + width, y + height), root / "bounding_boxes.txt", f"image {number}", problems)
    return Sample(name, "", b"", label, (box,))
