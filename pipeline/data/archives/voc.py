"""Pascal VOC 2007 as published: `VOCdevkit/VOC2007` with Annotations, ImageSets and JPEGImages."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.data.archives.base import (
    Archive,
    Problems,
    checked_box,
    duplicates,
    image_problem,
    read_table,
    read_xml,
    require,
)
from pipeline.data.sources.box_formats import parse_box
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.shards import Box, Sample, Shard
from pipeline.errors import ConfigError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes in alphabetical order, as in all published results on VOC."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(source: Path, split: str | None) -> Archive:
    """Read one split (test, train, val, trainval) of VOC 2007.

    An image has the classes of its objects, and each object has a box. Objects marked `difficult` are left out, as in
    the challenge. VOC numbers pixels from 1, and its boxes include their last pixel: xmin 1 becomes the edge 0, xmax
    stays.

    Args:
        source: the folder VOC2007, VOCdevkit, or the folder that contains VOCdevkit.
        split: None means test.

    Raises:
        ConfigError: files of the archive are missing or invalid.
    """
    root = next((source / name for name in ("VOCdevkit/VOC2007", "VOC2007") if (source / name).is_dir()), source)
    listing = require(root, f"ImageSets/Main/{_split(split)}.txt")
    problems = Problems()
    names = [name for (name,) in read_table(listing, source, r"([0-9A-Za-z_]+)(?: +-?[01])?", problems)]
    for name in duplicates(names):
        problems.add(listing, "lists images twice", name)
    if not names:
        problems.add(listing, "lists no image")
    samples = {f"{name}.jpg": _read_sample(name, root, source, problems) for name in names}
    problems.raise_if_any()
    images = root / "JPEGImages"
    shard = Shard(0, images.name, "folder", str(images), 0, "", len(samples), members=tuple(samples))
    return Archive(shard, samples, ClassTable(CLASSES))


def _split(split: str | None) -> str:
    if split is not None and not re.fullmatch("[A-Za-z0-9_]+", split):
        raise ConfigError.one("--split", f"'{split}' is not a split", "choose test, train, val or trainval")
    return split or "test"


def _read_sample(name: str, root: Path, source: Path, problems: Problems) -> Sample:
    """Read the annotation of one image."""
    path = root / "Annotations" / f"{name}.xml"
    problem = image_problem(root / "JPEGImages" / f"{name}.jpg", source)
    if problem:
        problems.add(root / "JPEGImages", problem, f"{name}.jpg")
    annotation = read_xml(path, source, problems)
    if annotation is None:
        return Sample(f"{name}.jpg", "", b"", None, None)
    stated = (annotation.findtext("filename") or f"{name}.jpg").strip()
    if stated != f"{name}.jpg":
        problems.add(path.parent, "annotations belong to another image", f"{path.name} names {stated}")
    return _sample(name, _objects(annotation, path, problems))


def _objects(annotation: Element, path: Path, problems: Problems) -> list[tuple[int, Box]]:
    """Return class and box of each object that is not difficult; boxes of parts of objects are ignored."""
    objects = []
    for element in annotation.findall("object"):
        name = (element.findtext("name") or "").strip()
        corners = [(element.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS]
        difficult = (element.findtext("difficult") or "0").strip()
        x0, y0, x1, y1 = checked_box(parse_box(corners), path.parent, path.name, problems)
        if name not in CLASSES:
            problems.add(path.parent, "objects have a class that is not in VOC", f"{path.name} '{name}'")
        elif difficult not in ("0", "1"):
            problems.add(path.parent, "objects have a difficult flag other than 0 and 1", f"{path.name} '{difficult}'")
        elif difficult == "0":
            objects.append((CLASSES.index(name), (x0 - 1, y0 - 1, x1, y1)))
    return objects


def _sample(name: str, objects: Sequence[tuple[int, Box]]) -> Sample:
    labels = tuple(sorted({label for label, _ in objects}))
    return Sample(
        f"{name}.jpg",
        "",
        b"",
        labels[0] if len(labels) == 1 else None,
        tuple(box for _, box in objects),
        labels,
        tuple(label for label, _ in objects),
    )
