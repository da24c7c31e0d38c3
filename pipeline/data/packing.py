"""Writing webdataset shards: from an image folder, or from the official archive of a dataset."""

import csv
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from webdataset import ShardWriter

from pipeline.data.archives import read_archive
from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.annotations import Annotations, load_annotations, read_csv
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.folder import folder_annotations
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Packed:
    """What was written; `pattern` names all shards."""

    pattern: str
    shards: int
    images: int
    failures: tuple[Failure, ...]


def pack_images(source: Path, dest: Path, images_per_shard: int, classes: str | None = None) -> Packed:
    """Write images, with their labels and boxes, as `DEST/shard-NNNNNN.tar`.

    Members are KEY.SUFFIX, KEY.cls (label) and KEY.json (boxes). The bytes of images are not touched. Dots within a
    file's stem become underscores, because a key ends at the first dot; files that would share a key get numbers.

    Args:
        source: a folder of images (`labels.csv`, `boxes.csv` or class sub-folders are used), or a CSV file with a
            column `filename` (relative to it) and optionally `class_index`.
        dest: a new or empty folder.
        images_per_shard: most images in one shard.
        classes: class table, where labels are names or WordNet ids.

    Raises:
        ConfigError: there are no images, or the destination is not empty.
    """
    _refuse_taken(dest)
    table = load_classes(classes)
    shards, annotations = _listed(source, table) if source.suffix == ".csv" else _folder(source, table)
    return _written(
        (item for shard in shards for item in read_shard(shard, Reading(annotations))), dest, images_per_shard
    )


def pack_archive(kind: str, source: Path, dest: Path, images_per_shard: int, split: str | None = None) -> Packed:
    """Write the images of an official archive as `DEST/shard-NNNNNN.tar`, and its classes as `DEST/classes.csv`.

    Members are as of `pack_images`. Where images may have several labels, KEY.json also lists them (labels), and the
    class of each box (box_labels). `classes.csv` is for `load_classes`, which gives back each name as the archive has
    it: a name that a spreadsheet would take for a formula is not changed, so do not open the file with one.

    Args:
        kind: imagenet-val, voc2007 or cub200.
        source: the archive, unpacked; its images may be a tar.
        dest: a new or empty folder.
        images_per_shard: most images in one shard.
        split: which images; None takes test where the archive has splits.

    Raises:
        ConfigError: the destination is not empty, or anything is wrong with the archive; nothing was written then.
    """
    _refuse_taken(dest)
    archive = read_archive(kind, source, split)
    packed = _written(archive.items(), dest, images_per_shard)
    with (dest / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class_index", "class_name", "wnid"])
        wnids = archive.classes.wnids or [""] * len(archive.classes.names)
        writer.writerows(zip(itertools.count(), archive.classes.names, wnids, strict=False))
    return packed


def _refuse_taken(dest: Path) -> None:
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ConfigError.one("DEST", f"'{dest}' is not an empty folder", "choose another")


def _written(items: Iterable[Item], dest: Path, images_per_shard: int) -> Packed:
    dest.mkdir(parents=True, exist_ok=True)
    keys: set[str] = set()
    failures: list[Failure] = []
    names = f"{dest.absolute()}".replace("%", "%%") + "/shard-%06d.tar"  # absolute: it must never read as a URL
    # mtime=0: the same images give the same shards
    with ShardWriter(names, maxcount=images_per_shard, maxsize=1e12, verbose=0, mtime=0) as writer:
        for item in items:
            if isinstance(item, Sample):
                writer.write(_members(item, keys))
            else:
                failures.append(item)
    count = len(list(dest.glob("shard-*.tar")))
    return Packed(f"{dest}/shard-{{000000..{count - 1:06d}}}.tar", count, len(keys), tuple(failures))


def _folder(folder: Path, classes: ClassTable) -> tuple[list[Shard], Annotations]:
    shards = list_shards(str(folder))
    if any(shard.kind != "folder" for shard in shards):
        raise ConfigError.one("SOURCE", f"'{folder}' holds shards already, not loose images")
    return shards, folder_annotations(shards, classes)


def _listed(path: Path, classes: ClassTable) -> tuple[list[Shard], Annotations]:
    """Images that a CSV file lists; `boxes.csv` beside it is used."""
    rows = read_csv("SOURCE", str(path), ("filename",))
    names = tuple(row["filename"] for row in rows)
    boxes = path.with_name("boxes.csv")
    annotations = load_annotations(
        str(path) if "class_index" in rows[0] else None, str(boxes) if boxes.is_file() else None, classes
    )
    return [Shard(0, path.name, "folder", str(path.parent), 0, "", len(names), members=names)], annotations


def _members(sample: Sample, keys: set[str]) -> dict[str, Any]:
    path = PurePosixPath(sample.key)
    suffix = path.suffix.lower().lstrip(".")
    stem = path.stem if suffix in IMAGE_SUFFIXES else path.name
    members: dict[str, Any] = {"__key__": _unused(str(path.with_name(stem.replace(".", "_") or "_")), keys)}
    members[suffix if suffix in IMAGE_SUFFIXES else "img"] = sample.image
    if sample.label is not None:
        members["cls"] = str(sample.label).encode()
    fields = {"boxes": sample.boxes_xyxy, "labels": sample.labels or None, "box_labels": sample.box_labels}
    known = {name: value for name, value in fields.items() if value is not None}
    if known:
        members["json"] = json.dumps(known).encode()
    return members


def _unused(key: str, keys: set[str]) -> str:
    """Give a key that no earlier image has: the key itself, or with a number."""
    free = next(name for n in itertools.count(1) if (name := key if n == 1 else f"{key}_{n}") not in keys)
    keys.add(free)
    return free
