"""CUB-200-2011 as published: `CUB_200_2011` with images and tables that speak of them by number."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.data.archives.base import Archive, Troubles, image_trouble, proved, read_table, repeated, required
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import parse_box
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
"""Lines of the tables, which all begin with the number of an image; names stay within their folder."""

_IS_TRAIN = {"test": ("0",), "train": ("1",), "all": ("0", "1")}

Row = Sequence[str]


def read_cub(source: Path, split: str | None) -> Archive:
    """Read one split (test, train or all) of CUB-200-2011.

    Classes are numbered from 1 there and from 0 here; a box is left, top, width, height there.

    Args:
        source: the folder CUB_200_2011, or the one that holds it.
        split: None is test.

    Raises:
        ConfigError: what is missing, wrong or contradicts itself in the archive.
    """
    wanted = split or "test"
    if wanted not in _IS_TRAIN:
        raise ConfigError.one("--split", f"'{wanted}' is no split", "test, train or all")
    root = source / "CUB_200_2011" if (source / "CUB_200_2011").is_dir() else source
    troubles = Troubles()
    folders = _classes(required(root, "classes.txt"), source, troubles)
    tables = {name: _numbered(required(root, name), source, pattern, troubles) for name, pattern in _TABLES.items()}
    _check_numbers(root, tables, troubles)
    known = {
        row[0]: _known(number, root, source, folders, tables, troubles)
        for number, row in tables["images.txt"].items()
        if tables["train_test_split.txt"].get(number, ("",))[0] in _IS_TRAIN[wanted]
    }
    if not known:
        troubles.add(root / "train_test_split.txt", f"names no image of the split '{wanted}'")
    troubles.raise_if_any()
    images = root / "images"
    shard = Shard(0, images.name, "folder", str(images), 0, "", len(known), members=tuple(known))
    return Archive(shard, known, ClassTable(tuple(map(_spoken, folders))))


def _classes(path: Path, source: Path, troubles: Troubles) -> list[str]:
    """Read the folders of the classes, which are numbered from 1 without gaps."""
    rows = list(read_table(path, source, rf"{_NUMBER}\s+({_NAME})", troubles))
    if [int(number) for number, _ in rows] != list(range(1, len(rows) + 1)) or not rows:
        troubles.add(path, "does not number its classes 1, 2, 3 and so on")
    return [name for _, name in rows]


def _spoken(folder: str) -> str:
    """The name of a class: `004.Groove_billed_Ani` is Groove billed Ani."""
    number, dot, name = folder.partition(".")
    return (name if dot and number.isdigit() else folder).replace("_", " ")


def _numbered(path: Path, source: Path, pattern: str, troubles: Troubles) -> dict[str, Row]:
    """Read a table by the number of the image."""
    rows = [(number, rest) for number, *rest in read_table(path, source, pattern, troubles)]
    for number in repeated(number for number, _ in rows):
        troubles.add(path, "names images twice", number)
    return dict(rows)


def _check_numbers(root: Path, tables: Mapping[str, Mapping[str, Row]], troubles: Troubles) -> None:
    """Every table must speak of the same images, and no file may have two numbers."""
    images = tables["images.txt"]
    for name, rows in tables.items():
        for number in sorted(images.keys() - rows.keys(), key=int):
            troubles.add(root / name, "lacks images of images.txt, by number", number)
        for number in sorted(rows.keys() - images.keys(), key=int):
            troubles.add(root / name, "speaks of images that are not in images.txt, by number", number)
    for name in repeated(row[0] for row in images.values()):
        troubles.add(root / "images.txt", "names files twice", name)


def _known(
    number: str,
    root: Path,
    source: Path,
    folders: Sequence[str],
    tables: Mapping[str, Mapping[str, Row]],
    troubles: Troubles,
) -> Sample:
    """Put together what the tables say of one image."""
    (name,) = tables["images.txt"][number]
    trouble = image_trouble(root / "images" / name, source)
    if trouble:
        troubles.add(root / "images", trouble, name)
    label = int(tables["image_class_labels.txt"].get(number, ("1",))[0]) - 1
    if not 0 <= label < len(folders):
        troubles.add(root / "image_class_labels.txt", "names classes that classes.txt lacks", f"image {number}")
    elif folders[label] != name.partition("/")[0]:
        troubles.add(root / "image_class_labels.txt", "contradicts the folder of images", f"{name} as {folders[label]}")
    x, y, width, height = parse_box(tables["bounding_boxes.txt"].get(number, ("0", "0", "1", "1")))
    box = proved((x, y, x + width, y + height), root / "bounding_boxes.txt", f"image {number}", troubles)
    return Sample(name, "", b"", label, (box,))
