"""Boxes of YOLO: a folder with one text for each image, with the number of a class and a box in each line.

Boxes are centre and size, in shares of the picture. Lines with more numbers are outlines, whose surrounding box is
taken. The names of the classes are in `classes.txt`, `obj.names`, or `names` of a YAML file.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from pipeline.data.sources.box_formats import checked, corners, parse_box
from pipeline.data.sources.box_names import WHERE, BoxFile, Naming, Object
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import MAX_TEXT_BYTES
from pipeline.data.sources.shards import Box
from pipeline.data.sources.wrong_rows import WrongRowError, WrongRows
from pipeline.errors import ConfigError

_NAME_FILES = ("classes.txt", "obj.names", "classes.names", "data.yaml", "dataset.yaml", "data.yml")
_OTHER_TEXTS = ("classes.txt", "train.txt", "val.txt", "test.txt", "readme.txt", "notes.txt")
_NUMBERS = "{}: the numbers of its classes are indices of {}, because no classes.txt names them"
_LARGEST = 1.5
"""Labels of objects at the edge may exceed the picture a little."""


def read_yolo(folder: Path, files: Sequence[Path], classes: ClassTable) -> BoxFile:
    """Read the texts of a folder: labels and boxes by the name of the file within the folder, without its suffix.

    Without a table of classes, or without names, the numbers are the classes.

    Raises:
        ConfigError: lines are wrong, a number has no name, or the names are no classes.
    """
    names = _names(folder) if classes.names else ()
    objects: dict[str, list[Object]] = {}
    wrong = WrongRows(WHERE, str(folder), "files")
    for path in files:
        if path.name.lower() not in _OTHER_TEXTS:
            name = path.relative_to(folder)
            with wrong.collecting(name.as_posix()):
                objects[name.with_suffix("").as_posix()] = [_object(line, names) for line in _lines(path)]
    wrong.raise_if_any()
    notes = (_NUMBERS.format(folder, classes.source),) if classes.names and not names else ()
    naming = Naming(str(folder), (name for found in objects.values() for name, _ in found), classes)
    images = {image: naming.described(found, relative=True) for image, found in objects.items()}
    return BoxFile(images, (*notes, *naming.notes))


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongRowError(f"cannot be read: {error}") from None
    return [line for line in text.splitlines() if line.strip()]


def _object(line: str, names: Sequence[str]) -> Object:
    number, *values = line.split()
    if not number.isascii() or not number.isdigit():
        raise WrongRowError(f"'{line[:60]}' does not begin with the number of a class")
    if names and int(number) >= len(names):
        raise WrongRowError(f"class {number} has no name; there are {len(names)} names")
    box = checked((_surrounding(values) if len(values) > 5 else corners(parse_box(values[:4]), "cxcywh"),))[0]
    if max(box) > _LARGEST:
        raise WrongRowError(f"'{line[:60]}' is no box in shares of the picture")
    return names[int(number)] if names else number, box


def _surrounding(values: Sequence[str]) -> Box:
    """Return the box around an outline."""
    points = [parse_box([x, y, x, y]) for x, y in zip(values[::2], values[1::2], strict=False)]
    return (
        min(point[0] for point in points), min(point[1] for point in points),
        max(point[0] for point in points), max(point[1] for point in points),
    )  # fmt: skip


def _names(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes, from a file in the folder or up to two folders above; empty without one."""
    for place in (folder, folder.parent, folder.parent.parent):
        for path in (place / name for name in _NAME_FILES):
            if path.is_file():
                return _yaml_names(path) if path.suffix in (".yaml", ".yml") else tuple(map(str.strip, _lines(path)))
    return ()


def _yaml_names(path: Path) -> tuple[str, ...]:
    try:
        names = yaml.safe_load("\n".join(_lines(path)))["names"]
        values = [names[index] for index in range(len(names))]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError, WrongRowError):
        raise ConfigError.one(WHERE, f"'{path}' has no list 'names'", "expected the names of YOLO's classes") from None
    return tuple(map(str, values))
