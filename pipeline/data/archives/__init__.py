"""Official archives of datasets, as they are published: where their images lie, and what they say of each."""

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
    """Read what an archive says of its images; the images themselves are not read yet.

    Args:
        kind: imagenet-val, voc2007 or cub200.
        source: the unpacked archive; of imagenet-val the tar of images too, with the other files beside it.
        split: which images; None takes test where the archive has splits.

    Raises:
        ConfigError: everything that is missing, damaged or contradicts itself in the archive.
    """
    if kind not in ARCHIVES:
        raise ConfigError.one("--from", f"unknown archive '{kind}'", nearest(kind, ARCHIVES))
    if not source.exists():
        raise ConfigError.one("SRC", f"'{source}' does not exist")
    return ARCHIVES[kind](source, split)
