"""Boxes of COCO: one JSON file with images, categories and annotations, whose boxes are a corner and the size."""

import json
from typing import Any

from pipeline.data.sources.box_formats import checked, parse_boxes
from pipeline.data.sources.box_names import WHERE, BoxFile, Naming, Object
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.objects import read_text
from pipeline.data.sources.shards import Box
from pipeline.data.sources.wrong_rows import WrongRowError, WrongRows
from pipeline.errors import ConfigError

_PARTS = ("images", "annotations", "categories")
_NO_COCO = "expected COCO's images, annotations and categories"


def read_coco(location: str, classes: ClassTable) -> BoxFile:
    """Read a COCO file: the labels and boxes of each image by its file name.

    Objects marked `iscrowd` give a label and no box, because their box surrounds many objects.

    Raises:
        ConfigError: it is no COCO file, its annotations are wrong, or its categories are no classes.
    """
    images, annotations, categories = _parts(location)
    names = _by_id(location, "categories", categories, "name")
    files = _by_id(location, "images", images, "file_name")
    objects: dict[str, list[Object]] = {file: [] for file in files.values()}
    wrong = WrongRows(WHERE, location, "annotations")
    for annotation in annotations:
        with wrong.collecting(f"annotation {annotation.get('id') if isinstance(annotation, dict) else annotation}"):
            file, found = _object(annotation, files, names)
            objects[file].append(found)
    wrong.raise_if_any()
    naming = Naming(location, names.values(), classes)
    described = {file: naming.described(found) for file, found in objects.items()}
    return BoxFile(described, naming.notes)


def _parts(location: str) -> tuple[list[Any], list[Any], list[Any]]:
    try:
        content = json.loads(read_text(WHERE, location))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError.one(WHERE, f"'{location}' is not JSON: {error}", _NO_COCO) from None
    parts = [content.get(name) if isinstance(content, dict) else None for name in _PARTS]
    missing = [name for name, part in zip(_PARTS, parts, strict=True) if not isinstance(part, list)]
    if missing:
        raise ConfigError.one(WHERE, f"'{location}' has no list '{missing[0]}'", _NO_COCO)
    return tuple(parts)  # type: ignore[return-value]  # three lists


def _by_id(location: str, part: str, entries: list[Any], field: str) -> dict[object, str]:
    """Return a field of the images or categories by their id, which must be unique."""
    found: dict[object, str] = {}
    wrong = WrongRows(WHERE, location, part)
    for place, entry in enumerate(entries):
        with wrong.collecting(f"{part}[{place}]"):
            if not isinstance(entry, dict) or not isinstance(entry.get(field), str) or "id" not in entry:
                raise WrongRowError(f"it has no id or no {field}")
            if not isinstance(entry["id"], (int, str)) or entry["id"] in found:
                raise WrongRowError(f"its id {entry['id']} is not unique")
            found[entry["id"]] = entry[field]
    wrong.raise_if_any()
    return found


def _object(annotation: object, files: dict[object, str], names: dict[object, str]) -> tuple[str, Object]:
    """Return the image of an annotation, the name of its category, and its box."""
    fields = annotation if isinstance(annotation, dict) else {}
    image, category = fields.get("image_id"), fields.get("category_id")
    if not isinstance(image, (int, str)) or image not in files:
        raise WrongRowError(f"its image_id {image} is no image of the file")
    if not isinstance(category, (int, str)) or category not in names:
        raise WrongRowError(f"its category_id {category} is no category of the file")
    return files[image], (names[category], None if fields.get("iscrowd") else _box(fields.get("bbox")))


def _box(bbox: object) -> Box:
    if not isinstance(bbox, list):
        raise WrongRowError("it has no bbox")
    return checked(parse_boxes([bbox], "xywh"))[0]
