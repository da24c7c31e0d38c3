"""Writes webdataset shards from an image folder, a CSV list or the official archive of a dataset."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from webdataset import ShardWriter

from pipeline.data.account import LabelAccount
from pipeline.data.account_check import check_matches
from pipeline.data.annotations import describe
from pipeline.data.archives import read_archive
from pipeline.data.class_counts import with_counts
from pipeline.data.limits import is_image_file
from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.csv_rows import read_csv
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.manifest import list_manifest
from pipeline.data.sources.manifest_table import LINES, TEXTS
from pipeline.data.sources.objects import open_text
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig, Folders


@dataclass(frozen=True)
class Packed:
    """Summary of the written shards; `pattern` is a brace pattern that names all of them."""

    pattern: str
    shards: int
    images: int
    failures: tuple[Failure, ...]


def pack_images(
    source: Path,
    dest: Path,
    images_per_shard: int,
    classes: str | None = None,
    folders: Folders = "auto",
    tell: Callable[[LabelAccount], object] = lambda _: None,
) -> Packed:
    """Write images, with their labels and boxes, to `DEST/shard-NNNNNN.tar`.

    Members are KEY.SUFFIX, KEY.cls (label) and KEY.json (boxes). The bytes of images are not changed. KEY is the path
    of the file without its suffix. If that is taken, or the suffix is unknown, it is the whole path. A key with dots
    gets a KEY.json with the name of the file, so that readers see that the key does not end at the first dot. Files
    that are not images are left out.

    Args:
        source: a folder of images (`labels.csv`, `boxes.csv` or class sub-folders are used), a CSV file with a
            column `filename` (relative to the CSV file) and optionally `class_index`, or any list that `data.manifest`
            takes.
        dest: a new or empty folder.
        images_per_shard: maximum number of images in one shard.
        classes: class table, needed if labels are names or WordNet ids.
        folders: whether sub-folders are classes, as `data.folders`.
        tell: is called with the label account before anything is written.

    Raises:
        ConfigError: there are no images, the destination is not an empty folder, or a file does not match the images.
    """
    _require_empty(dest)
    if source.suffix.lower() not in _LISTS:
        data, shards = _from_folder(source, classes, folders)
    elif _is_plain_list(source):
        data, shards = _from_csv(source, classes)
    else:
        data = DataConfig(manifest=str(source), classes=classes)
        shards = list_manifest(data)
    described = describe(data, shards)
    account = with_counts(described, shards)
    check_matches(account, data)
    tell(account)
    annotations = described.annotations
    return _write_shards(
        (item for shard in shards for item in read_shard(shard, Reading(annotations))), dest, images_per_shard
    )


def pack_archive(kind: str, source: Path, dest: Path, images_per_shard: int, split: str | None = None) -> Packed:
    """Write the images of an official archive to `DEST/shard-NNNNNN.tar`, and its classes to `DEST/classes.csv`.

    Members are as in `pack_images`. If images may have several labels, KEY.json also lists them (labels) and the
    class of each box (box_labels). `classes.csv` is for `load_classes`, which returns each name as in the archive. A
    name that a spreadsheet would take for a formula is not escaped, so do not open the file in a spreadsheet.

    Args:
        kind: imagenet-val, voc2007 or cub200.
        source: the unpacked archive; its images may be in a tar.
        dest: a new or empty folder.
        images_per_shard: maximum number of images in one shard.
        split: the images to pack; None means test if the archive has splits.

    Raises:
        ConfigError: the destination is not an empty folder, or the archive is invalid; nothing is written.
    """
    _require_empty(dest)
    archive = read_archive(kind, source, split)
    packed = _write_shards(archive.items(), dest, images_per_shard)
    with (dest / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class_index", "class_name", "wnid"])
        wnids = archive.classes.wnids or [""] * len(archive.classes.names)
        writer.writerows(zip(itertools.count(), archive.classes.names, wnids, strict=False))
    return packed


def _require_empty(dest: Path) -> None:
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ConfigError.one("DEST", f"'{dest}' is not an empty folder", "choose a new or empty folder")


def _write_shards(items: Iterable[Item], dest: Path, images_per_shard: int) -> Packed:
    dest.mkdir(parents=True, exist_ok=True)
    keys: set[str] = set()
    failures: list[Failure] = []
    names = f"{dest.absolute()}".replace("%", "%%") + "/shard-%06d.tar"  # absolute, so that it is never taken for a URL
    # mtime=0, so that the same images give the same bytes
    with ShardWriter(names, maxcount=images_per_shard, maxsize=1e12, verbose=0, mtime=0) as writer:
        for item in items:
            if isinstance(item, Sample) and not _is_image(item):
                failures.append(Failure(item.key, item.shard, "read", "format", "its name and content are no image's"))
            elif isinstance(item, Sample):
                writer.write(_members(item, keys))
            else:
                failures.append(item)
    count = len(list(dest.glob("shard-*.tar")))
    return Packed(f"{dest}/shard-{{000000..{count - 1:06d}}}.tar", count, len(keys), tuple(failures))


def _is_image(sample: Sample) -> bool:
    """Return whether a file is an image by its name or its first bytes; one that is damaged keeps its failure row."""
    return PurePosixPath(sample.key).suffix.lower().lstrip(".") in IMAGE_SUFFIXES or is_image_file(sample.image)


def _from_folder(folder: Path, classes: str | None, folders: Folders) -> tuple[DataConfig, list[Shard]]:
    shards = list_shards(str(folder))
    if any(shard.kind != "folder" for shard in shards):
        raise ConfigError.one("SOURCE", f"'{folder}' already contains shards, not loose images")
    return DataConfig(shards=str(folder), classes=classes, folders=folders), shards


_LISTS = (*TEXTS, *LINES, ".parquet")


def _is_plain_list(path: Path) -> bool:
    """Return whether a CSV file lists names, with or without indices; any other list is read as `data.manifest`."""
    with open_text("SOURCE", str(path)) as file:
        try:
            header = next(csv.reader(file), [])
        except (csv.Error, UnicodeDecodeError):
            return False
    return "filename" in header and ("class_index" in header or len(header) == 1)


def _from_csv(path: Path, classes: str | None) -> tuple[DataConfig, list[Shard]]:
    """List the images of a CSV file; `labels.csv` and `boxes.csv` in the same folder apply to them too."""
    rows = read_csv("SOURCE", str(path), ("filename",))
    names = tuple(row["filename"] for row in rows)
    data = DataConfig(
        shards=str(path),
        labels=str(path) if "class_index" in rows[0] else None,
        classes=classes,
        folders="ignore",
    )
    return data, [Shard(0, path.name, "folder", str(path.parent), 0, "", len(names), members=names)]


def _members(sample: Sample, keys: set[str]) -> dict[str, Any]:
    path = PurePosixPath(sample.key)
    suffix = path.suffix.lower().lstrip(".")
    known = suffix in IMAGE_SUFFIXES
    key = _unique_key(_without_suffix(path) if known else sample.key, sample.key, keys)
    members: dict[str, Any] = {"__key__": key, suffix if known else "img": sample.image}
    if sample.label is not None:
        members["cls"] = str(sample.label).encode()
    fields: dict[str, Any] = {
        "boxes": sample.boxes_xyxy,
        "labels": sample.labels or None,
        "box_labels": sample.box_labels,
    }
    if "." in PurePosixPath(key).name:
        fields["filename"] = sample.key
    present = {name: value for name, value in fields.items() if value is not None}
    if present:
        members["json"] = json.dumps(present).encode()
    return members


def _without_suffix(path: PurePosixPath) -> str:
    """Return a path without its suffix; dots at the ends of its last name cannot be part of a key."""
    stem = path.stem.rstrip(".")
    return str(path.with_name("_" + stem[1:] if stem.startswith(".") else stem or "_"))


def _unique_key(key: str, name: str, keys: set[str]) -> str:
    """Return a key that no earlier image has: the key itself, or the name of the file, or that with a number."""
    numbered = (f"{name}_{n}" for n in itertools.count(2))
    free = next(each for each in itertools.chain((key, name), numbered) if each not in keys)
    keys.add(free)
    return free
