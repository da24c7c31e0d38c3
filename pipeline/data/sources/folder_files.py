"""Finds the images of a folder: follows links, and tells apart images, what belongs to them, and litter."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ConfigError, Mistake
from pipeline.settings.data import ANNOTATION_SUFFIXES

SIDE_FILES = tuple(f".{suffix}" for suffix in ANNOTATION_SUFFIXES if suffix != "cls")
"""Suffixes of files with labels and boxes."""

_TEXTS = (
    *SIDE_FILES, ".tsv", ".jsonl", ".ndjson", ".md", ".rst", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".html",
    ".pdf", ".py", ".ipynb", ".sh", ".names", ".data", ".db", ".lock",
)  # fmt: skip
_CHECKSUMS = (".md5", ".sha1", ".sha256", ".sha512", ".sfv", ".asc", ".sig", ".crc")
_LITTER = frozenset(
    ("thumbs.db", "desktop.ini", "icon\r", "license", "licence", "readme", "md5sums", "sha1sums", "sha256sums",
     "sha512sums", "checksums")
)  # fmt: skip
CONTAINERS = {
    "tar": (".tar",),
    "compressed tar": (".tar.gz", ".tgz"),
    "Parquet": (".parquet",),
    "Arrow": (".arrow", ".feather"),
    "zip": (".zip",),
    "MDS": (".mds", ".mds.zstd", ".mds.zst"),
    "TFRecord": (".tfrecord", ".tfrecords", ".tfrec"),
    "archive": (".7z", ".rar", ".tar.bz2", ".tar.xz", ".tar.zst"),
    "database": (".lmdb", ".mdb", ".beton", ".sqlite"),
}
"""Suffixes of files that hold many images."""
_CONVERT = "write it as tars or Parquet, with the library that reads it"
_HINTS = {
    "zip": "unpack it into a folder",
    "archive": "unpack it into a folder",
    "MDS": f"{_CONVERT}: streaming.StreamingDataset",
    "TFRecord": f"{_CONVERT}: tensorflow.data.TFRecordDataset",
    "database": _CONVERT,
}
_NUMBERED = re.compile(r"-\d{5}-of-\d{5}$")
"""How TFRecords are often named, without a suffix."""
_IMAGE_FOLDERS = frozenset(("jpegimages", "images", "image", "imgs", "img"))
_MASK_FOLDERS = frozenset(
    ("segmentationclass", "segmentationobject", "masks", "mask", "segmentations", "segmentation", "trimaps",
     "annotations", "labels", "gt", "ground_truth", "groundtruth")
)  # fmt: skip
_HIDDEN_FOLDERS = (".", "@eaDir")
"""How the names of folders begin that programs keep for themselves."""
_MOST_ENTRIES = 10_000
_MOST_LINKS = 1000
"""How often one folder may be reached; folders that link to each other can be reached in more ways than can be read."""


@dataclass
class FolderFiles:
    """The files of a folder and its sub-folders, as sorted paths within it.

    Attributes:
        images: those that are read.
        ignored: those that are not, by what they are: hidden, hidden folder, text, checksum, litter, mask, not a
            file, unwanted, or a kind of `CONTAINERS`.
    """

    images: list[str] = field(default_factory=list)
    ignored: dict[str, list[str]] = field(default_factory=dict)


def find_files(folder: Path, suffixes: Sequence[str] | None = None) -> FolderFiles:
    """Sort the files of a folder and its sub-folders into images and others; linked folders are followed.

    Args:
        folder: the folder.
        suffixes: those of images, without their dot; None takes every file that is not known to be something else.

    Raises:
        ConfigError: folders that link to each other can be reached in too many ways.
    """
    return _sorted_files(_walk(folder), suffixes)


def find_first_files(folder: Path, most: int, each: int) -> FolderFiles | None:
    """Look at the first files of each folder, where there are more files than one wants to list; None if there are not.

    Args:
        folder: the folder.
        most: number of files from which on there are too many.
        each: number of files that are then taken of each folder, of which ten thousand entries are listed at most.
    """
    count = sum(1 for _ in itertools.islice(_walk(folder), most + 1))
    if count <= most:
        return None
    return _sorted_files(itertools.islice(_walk(folder, each, _MOST_ENTRIES), most), None)


def _sorted_files(entries: Iterable[tuple[str, bool]], suffixes: Sequence[str] | None) -> FolderFiles:
    found = FolderFiles()
    for path, is_file in entries:
        kind = _kind(path, suffixes) if is_file else "hidden folder" if path.endswith("/") else "not a file"
        (found.images if kind is None else found.ignored.setdefault(kind, [])).append(path)
    _take_out_masks(found)
    found.images.sort()
    for paths in found.ignored.values():
        paths.sort()
    return found


def container_kind(name: str) -> str | None:
    """Return what a file of many images is, by its name; None for any other file."""
    lower = name.lower()
    kinds = (kind for kind, suffixes in CONTAINERS.items() if lower.endswith(suffixes))
    return next(kinds, "TFRecord" if ".tfrecord-" in lower or _NUMBERED.search(lower) else None)


def described(folder: Path, found: FolderFiles) -> Mistake:
    """Say what a folder without images is, and how it can be read."""
    held = {kind: found.ignored[kind] for kind in CONTAINERS if kind in found.ignored}
    if not held:
        return Mistake("data.shards", f"folder '{folder}' contains no image, tar or Parquet file")
    kind, paths = max(held.items(), key=lambda item: len(item[1]))
    what = f"folder '{folder}' contains no image, but {len(paths)} {kind} file{'s' * (len(paths) > 1)} ('{paths[0]}')"
    suffix = next((suffix for suffix in CONTAINERS[kind] if paths[0].lower().endswith(suffix)), "")
    deep = "**/" if "/" in paths[0] else ""
    return Mistake("data.shards", what, _HINTS.get(kind, f"name them: data.shards: {folder}/{deep}*{suffix}"))


def _walk(folder: Path, each: int | None = None, entries_each: int | None = None) -> Iterator[tuple[str, bool]]:
    """Yield each path within a folder that is not a folder, and whether it is a file; a broken link counts as one.

    A hidden folder is not entered: its path is given with a slash behind it.

    Args:
        folder: the folder.
        each, entries_each: most paths that are yielded, and most entries that are listed, of each folder; None for all.
    """
    reached: Counter[tuple[int, int]] = Counter()
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        inner, above = pending.pop()
        stat = os.stat(folder / inner)  # noqa: PTH116 - one call for both numbers
        here = (stat.st_dev, stat.st_ino)
        if here in above:  # a link to a folder that it is in
            continue
        reached[here] += 1
        if reached[here] > _MOST_LINKS:
            raise ConfigError.one(
                "data.shards",
                f"'{folder / inner}' is reached by more than {_MOST_LINKS} links below '{folder}'",
                "name one of the linked folders",
            )
        with os.scandir(folder / inner) as entries:
            left = each
            for entry in itertools.islice(entries, entries_each):
                path = f"{inner}/{entry.name}" if inner else entry.name
                if not _is_folder(entry):
                    if left != 0:
                        yield path, _is_file(entry)
                        left = None if left is None else left - 1
                elif entry.name.startswith(_HIDDEN_FOLDERS):
                    yield f"{path}/", False
                else:
                    pending.append((path, above | {here}))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; only links cost a request, which never raises."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir(follow_symlinks=False)  # noqa: PTH112


def _is_file(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_file(follow_symlinks=False)
    return os.path.isfile(entry.path) or not os.path.exists(entry.path)  # noqa: PTH110, PTH113


def _kind(path: str, suffixes: Sequence[str] | None) -> str | None:
    """Return why a file is not an image; None for an image."""
    name = path.rpartition("/")[2].lower()
    if name.startswith(".") or path.startswith("__MACOSX/"):
        return "hidden"
    if suffixes is not None:
        return None if name.endswith(tuple(f".{suffix}" for suffix in suffixes)) else "unwanted"
    if name in _LITTER or name.endswith("~"):
        return "litter"
    if name.endswith(_CHECKSUMS):
        return "checksum"
    return "text" if name.endswith(_TEXTS) else container_kind(name)


def _take_out_masks(found: FolderFiles) -> None:
    """Take out the images in folders of masks; such a folder lies beside one of images, as in Pascal VOC."""
    folders = {path.rpartition("/")[0] for path in found.images}
    names = {part for folder in folders for part in _above(folder)}
    masks = {name for name in names if name.rpartition("/")[2].lower() in _MASK_FOLDERS and _beside_images(name, names)}
    if masks:
        is_mask = {path: not masks.isdisjoint(_above(path.rpartition("/")[0])) for path in found.images}
        found.ignored["mask"] = [path for path in found.images if is_mask[path]]
        found.images = [path for path in found.images if not is_mask[path]]


def _above(folder: str) -> list[str]:
    """Return a folder and all folders above it."""
    parts = folder.split("/") if folder else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _beside_images(name: str, names: Collection[str]) -> bool:
    parent = name.rpartition("/")[0]
    return any(
        other.rpartition("/")[0] == parent and other.rpartition("/")[2].lower() in _IMAGE_FOLDERS for other in names
    )
