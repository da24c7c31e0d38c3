"""Reads folders of image files; `pipeline.data.annotations` finds their labels and boxes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.data.sources.annotations import Annotations, annotated
from pipeline.data.sources.shards import Failure, Item, Sample, Shard, clean_text
from pipeline.data.sources.tar import MAX_MEMBER_BYTES
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
