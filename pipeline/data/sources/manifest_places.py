"""Where the images of a manifest are: absolute paths, paths below its root, and URLs of object stores."""

import itertools
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.sources.objects import bucket, is_url, split_url
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.data.sources.wrong_rows import WrongRowError
from pipeline.storage.base import Stat

if TYPE_CHECKING:
    from pipeline.storage.object_store import ObjectStore

SCHEMES = ("s3", "gs", "az")
_PARALLEL = 32
_MOST_FOLDERS = 50


class Places:
    """Finds the images that a manifest names.

    Args:
        root: the folder, or the URL of a prefix, that relative paths start from.
        where: the setting that the URLs come from.
    """

    def __init__(self, root: str, where: str) -> None:
        self.root, self._where = root.rstrip("/") or "/", where
        self._stems = cache(_images_by_stem)

    def located(self, path: str) -> str:
        """Return where an image is: an absolute path, or a URL.

        Raises:
            WrongRowError: the path is empty, leaves the root, or is a URL of no object store.
        """
        if "\0" in path or not path:
            raise WrongRowError("it names no image" if not path else "its path contains a zero byte")
        if is_url(path):
            return _checked_url(path)
        if path.startswith("/"):
            return posixpath.normpath(path)
        plain = posixpath.normpath(path)
        if posixpath.normpath(path.replace("\\", "/")).partition("/")[0] == "..":
            raise WrongRowError(f"'{_shown(path)}' leaves '{self.root}'")
        return f"{self.root.rstrip('/')}/{plain}"

    def found(self, location: str) -> tuple[str, int | None]:
        """Return the file and its size; None for the size of a missing one.

        A file that is written with backslashes, or without its suffix, is found too, if it is the only one.

        Raises:
            WrongRowError: it is a folder, a device or a pipe, or several files have this name without a suffix.
        """
        size = _size(location)
        if size is not None:
            return location, size
        if "\\" in location:
            return self.found(location.replace("\\", "/"))
        folder, _, name = location.rpartition("/")
        others = [] if _has_suffix(name) else self._stems(folder).get(name, [])
        if len(others) > 1:
            raise WrongRowError(f"'{name}' may be {' or '.join(others[:3])}")
        return (f"{folder}/{others[0]}", _size(f"{folder}/{others[0]}")) if others else (location, None)

    def other_root(self, missing: Sequence[str]) -> str:
        """Return a folder near the root, or the working folder, that has these files; empty if there is none."""
        start = f"{self.root.rstrip('/')}/"
        names = [location.removeprefix(start) for location in missing if location.startswith(start)]
        if is_url(self.root) or not names:
            return ""
        root = Path(self.root)
        near = [*root.parents[:3], Path.cwd(), *itertools.islice(_folders_in(root), _MOST_FOLDERS)]
        return next((str(folder) for folder in near if all(self._has(folder, name) for name in names)), "")

    def _has(self, folder: Path, name: str) -> bool:
        try:
            return self.found(f"{folder}/{name}")[1] is not None
        except WrongRowError:
            return False

    def stats(self, urls: Sequence[str]) -> dict[str, Stat | None]:
        """Request the size and ETag of objects, many in parallel; None for a missing one.

        Raises:
            ConfigError: a URL does not name a bucket.
            StoreError: the store cannot be reached.
        """
        stores = {url: bucket(url, self._where) for url in sorted({split_url(url)[0] for url in urls})}
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return dict(zip(urls, pool.map(partial(_stat, stores), urls), strict=True))


def common_folder(locations: Sequence[str]) -> str:
    """Return the deepest folder, with its final slash, that contains all of these locations."""
    if not locations:
        return ""
    first, last = (location.split("/")[:-1] for location in (min(locations), max(locations)))
    pairs = zip(first, last, strict=False)  # what the first and the last one share, all share
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    return "".join(f"{part}/" for part, _ in shared)


def is_placed(path: str) -> bool:
    """Return whether a path stands for itself, and not for a file below the root."""
    return path.startswith("/") or is_url(path)


def _folders_in(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in sorted(folder.iterdir()) if path.is_dir())
    except OSError:
        return


def _checked_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    known = ", ".join(f"{name}://" for name in SCHEMES)
    if scheme == "file":
        raise WrongRowError(f"'{_shown(url)}' is a URL of a file; write its path")
    if scheme not in SCHEMES:
        raise WrongRowError(f"'{_shown(url)}' is no URL of an object store ({known})")
    if "@" in rest.partition("/")[0] or "?" in rest:
        raise WrongRowError("credentials and queries do not belong in a URL; put credentials in the environment")
    return url


def _size(location: str) -> int | None:
    try:
        found = os.stat(location)  # noqa: PTH116 - many times faster than Path for a million files
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or a pipe"
    raise WrongRowError(f"'{_shown(location)}' is {kind}, and no image")


def _has_suffix(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _images_by_stem(folder: str) -> dict[str, list[str]]:
    """Return the images of a folder by their name without its suffix."""
    try:
        names = sorted(entry.name for entry in Path(folder).iterdir() if _has_suffix(entry.name))
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.rpartition(".")[0], []).append(name)
    return found


def _stat(stores: dict[str, "ObjectStore"], url: str) -> Stat | None:
    bucket_url, name = split_url(url)
    try:
        return stores[bucket_url].stat(name)
    except (FileNotFoundError, ValueError):  # ValueError: no valid name of an object
        return None


def _shown(path: str) -> str:
    return path if len(path) <= 100 else f"{path[:60]}...{path[-37:]}"
