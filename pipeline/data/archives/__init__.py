"""Official archives of datasets, as published: reads where their images are, with labels, boxes and classes."""

from collections.abc import Callable
from pathlib import Path

from pipeline.data.archives.base import Archive
from pipeline.data.archives.cub import read_cub
from pipeline.data.archives.imagenet import read_imagenet
from pipeline.data.archives.voc import read_voc
from pipeline.errors import ConfigError, nearest

__all__ = ["ARCHIVES", "Archive", "read_archive"]

ARCHIVES: dict[str, Callable[[Path, str | None], Archive]] = {
    "imagenet-val": read_imagenet,
    "voc2007": read_voc,
    "cub200": read_cub,
}


def read_archive(kind: str, source: Path, split: str | None = None) -> Archive:
    """Read the labels, boxes and classes of an archive; the images are not read yet.

    Args:
        kind: imagenet-val, voc2007 or cub200.
        source: the unpacked archive; for imagenet-val also the tar of images, with the other files in the same folder.
        split: the images to read; None means test if the archive has splits.

    Raises:
        ConfigError: files of the archive are missing, damaged or contradict each other; lists all problems.
    """
    if kind not in ARCHIVES:
        raise ConfigError.one("--from", f"unknown archive '{kind}'", nearest(kind, ARCHIVES))
    if not source.exists():
        raise ConfigError.one("SRC", f"'{source}' does not exist")
    return ARCHIVES[kind](source, split)
