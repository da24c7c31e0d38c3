"""Pascal VOC 2007 as published: `VOCdevkit/VOC2007` with Annotations, ImageSets and JPEGImages."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.data.archives.base import (
    Archive,
    Troubles,
    image_trouble,
    proved,
    read_table,
    read_xml,
    repeated,
    required,
)
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import parse_box
from pipeline.data.sources.shards import Box, Sample, Shard
from pipeline.errors import ConfigError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes in the order of their names, as in all results on VOC."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(source: Path, split: str | None) -> Archive:
    """Read one split (test, train, val, trainval) of VOC 2007.

    An image has the classes of its objects, and each object its box. Objects marked `difficult` give neither, as in
    the challenge, which does not count them. VOC numbers pixels from 1, and its boxes hold their last pixel: xmin 1
    becomes the edge 0, xmax stays.

    Args:
        source: the folder that holds VOCdevkit, or VOCdevkit, or VOC2007.
        split: None is test.

    Raises:
        ConfigError: what is missing or wrong in the archive.
    """
    root = next((source / name for name in ("VOCdevkit/VOC2007", "VOC2007") if (source / name).is_dir()), source)
    listing = required(root, f"ImageSets/Main/{_split(split)}.txt")
    troubles = Troubles()
    names = [name for (name,) in read_table(listing, source, r"([0-9A-Za-z_]+)(?: +-?[01])?", troubles)]
    for name in repeated(names):
        troubles.add(listing, "names images twice", name)
    if not names:
        troubles.add(listing, "names no image")
    known = {f"{name}.jpg": _known(name, root, source, troubles) for name in names}
    troubles.raise_if_any()
    images = root / "JPEGImages"
    shard = Shard(0, images.name, "folder", str(images), 0, "", len(known), members=tuple(known))
    return Archive(shard, known, ClassTable(CLASSES))


def _split(split: str | None) -> str:
    if split is not None and not re.fullmatch("[A-Za-z0-9_]+", split):
        raise ConfigError.one("--split", f"'{split}' is no split", "test, train, val or trainval")
    return split or "test"


def _known(name: str, root: Path, source: Path, troubles: Troubles) -> Sample:
    """Read what the archive says of one image."""
    path = root / "Annotations" / f"{name}.xml"
    trouble = image_trouble(root / "JPEGImages" / f"{name}.jpg", source)
    if trouble:
        troubles.add(root / "JPEGImages", trouble, f"{name}.jpg")
    annotation = read_xml(path, source, troubles)
    if annotation is None:
        return Sample(f"{name}.jpg", "", b"", None, None)
    stated = (annotation.findtext("filename") or f"{name}.jpg").strip()
    if stated != f"{name}.jpg":
        troubles.add(path.parent, "annotations speak of another image", f"{path.name} of {stated}")
    return _sample(name, _objects(annotation, path, troubles))


def _objects(annotation: Element, path: Path, troubles: Troubles) -> list[tuple[int, Box]]:
    """Class and box of each object that is not difficult; parts of objects have boxes of their own, which are none."""
    found = []
    for thing in annotation.findall("object"):
        name = (thing.findtext("name") or "").strip()
        corners = [(thing.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS]
        difficult = (thing.findtext("difficult") or "0").strip()
        x0, y0, x1, y1 = proved(parse_box(corners), path.parent, path.name, troubles)
        if name not in CLASSES:
            troubles.add(path.parent, "objects are of no class of VOC", f"{path.name} '{name}'")
        elif difficult not in ("0", "1"):
            troubles.add(path.parent, "objects say neither 0 nor 1 for difficult", f"{path.name} '{difficult}'")
        elif difficult == "0":
            found.append((CLASSES.index(name), (x0 - 1, y0 - 1, x1, y1)))
    return found


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
