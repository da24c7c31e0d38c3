"""Reads folders of image files: flat with `labels.csv` and `boxes.csv`, or one sub-folder per class."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.data.sources.annotations import Annotations, annotated, load_annotations
from pipeline.data.sources.box_formats import PLAIN, Form
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.shards import Failure, Item, Sample, Shard, clean_text
from pipeline.data.sources.tar import MAX_MEMBER_BYTES
from pipeline.errors import ConfigError
from pipeline.settings.data import ANNOTATION_SUFFIXES

FILES_PER_SHARD = 1024
SIDE_FILES = tuple(f".{suffix}" for suffix in ANNOTATION_SUFFIXES if suffix != "cls")
"""Suffixes of files that are not images; every other file in the folder is taken for an image."""


def read_folder(shard: Shard, annotations: Annotations) -> Iterator[Item]:
    """Read the files of one folder shard; the key is the path within the folder, with its suffix."""
    annotations = annotations.within(shard.location)
    for member in shard.members:
        path, name = Path(shard.location, member), clean_text(member)
        try:
            size = path.stat().st_size
            if size > MAX_MEMBER_BYTES:
                yield Failure(name, shard.name, "read", "too_large", f"{size} bytes")
                continue
            data = path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a name from a CSV file contains NUL
            detail = error.strerror if isinstance(error, OSError) else error
            yield Failure(name, shard.name, "read", "unreadable", str(detail))
            continue
        yield annotated(name, shard, data, {}, annotations)


def list_folder(shard: Shard) -> Iterator[Item]:
    """Stream the keys of one folder shard as samples without content."""
    return (Sample(clean_text(member), shard.name, b"", None, None) for member in shard.members)


def list_images(folder: Path, suffixes: Sequence[str] | None = None) -> list[str]:
    """List the image files of a folder and its sub-folders, sorted, as paths within it (hidden ones left out).

    Args:
        folder: the folder.
        suffixes: those of images, without their dot; None takes every file whose suffix is not that of annotations.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() or _is_broken_link(path))
    return sorted(
        path.as_posix()
        for path in paths
        if _is_image(path, suffixes) and not any(part.startswith(".") for part in path.parts)
    )


def _is_image(path: Path, suffixes: Sequence[str] | None) -> bool:
    if suffixes is None:
        return path.suffix.lower() not in SIDE_FILES
    return path.name.lower().endswith(tuple(f".{suffix}" for suffix in suffixes))


def _is_broken_link(path: Path) -> bool:
    """Return whether a path is a symbolic link without a target, which must be reported as a lost image."""
    return path.is_symlink() and not path.exists()


def class_folders(members: list[str], classes: ClassTable) -> dict[str, str]:
    """Label images by their class sub-folder: by id or name if the class table contains them, else by sorted order.

    Empty unless all images are in sub-folders, of which there are at least two.

    Raises:
        ConfigError: the class table contains some of the sub-folders but not all of them.
    """
    tops = [name.partition("/")[0] if "/" in name else "" for name in members]
    names = sorted(set(tops))
    if len(names) < 2 or not all(tops):
        return {}
    known = {name: str(index) for name in names if (index := classes.index(name)) is not None}
    if known and (unknown := [name for name in names if name not in known]):
        raise ConfigError.one("data.classes", f"the sub-folder '{unknown[0]}' is not a known class, but others are")
    index_of = known or {name: str(i) for i, name in enumerate(names)}
    return {clean_text(name): index_of[top] for name, top in zip(members, tops, strict=True)}


def folder_annotations(shards: Iterable[Shard], classes: ClassTable, form: Form = PLAIN) -> Annotations:
    """Collect the annotations in each folder: `labels.csv` and `boxes.csv`, completed by the class sub-folders.

    Raises:
        ConfigError: a file is unreadable or lacks a column.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for shard in shards:
        members[shard.location].extend(shard.members)
    by_folder: dict[str, Annotations] = {}
    for folder, names in members.items():
        labels, boxes = Path(folder, "labels.csv"), Path(folder, "boxes.csv")
        from_csv = load_annotations(
            str(labels) if labels.is_file() else None, str(boxes) if boxes.is_file() else None, classes, form
        )
        by_folder[folder] = from_csv.or_else(Annotations(classes, class_folders(names, classes)))
    return Annotations(classes, folders=by_folder)
