"""Places a run is written to: read, list, delete, and publish whole and only if absent.

A name is published all at once or not at all, so a retry, a zombie or a second driver can only lose the race.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow.dataset

from pipeline.errors import ConfigError, StoreError
from pipeline.sealed import CHECKED, check_footer

_NOT_FOLLOWED = "and none is followed within a run folder"
_UNREADABLE = (errno.ELOOP, errno.EISDIR, errno.EIO)


@dataclass(frozen=True)
class Stat:
    """What a store says of an object; the ETag changes with every put, and some stores have none."""

    size: int
    etag: str | None


@dataclass(frozen=True)
class Listed:
    """What a listing says of one object.

    Attributes:
        name: within its folder.
        size: bytes.
        modified: seconds since 1970, UTC, by the clock of the place.
    """

    name: str
    size: int
    modified: float


class Store(Protocol):
    """What a run needs of a place: a handful of verbs over flat names, on disk or in an object store."""

    url: str

    def publish(self, name: str, data: bytes) -> bool:
        """Make `data` appear under `name` whole and only if nothing is there; False when something is."""
        ...

    def read(self, name: str) -> bytes:
        """Read one object; raises FileNotFoundError when it is absent, StoreError when it cannot be read."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """List the names directly in a folder, hidden ones included, sorted."""
        ...

    def listed(self) -> list[Listed]:
        """List the objects directly in the run folder, hidden ones included, folders not, sorted by name."""
        ...

    def delete(self, name: str) -> None:
        """Remove one object if it is there."""
        ...

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open Parquet objects as one dataset with the schema of the first, to be read as it is asked.

        What is read is compared with checksums; raises ValueError or OSError, here or then, where it is damaged.
        """
        ...

    def check_writable(self) -> None:
        """Refuse a place that cannot take a run, leaving nothing behind; raises ConfigError or StoreError."""
        ...


class LocalStore:
    """A folder on a local or shared file system that has hard links.

    The folder may be reached by links, which the user made; below it no link is followed, neither to files nor to
    folders, so that nothing outside is read, written or deleted.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - the name the user gave, links kept
        self.url = str(self.folder)

    def publish(self, name: str, data: bytes) -> bool:
        """Write a hidden temporary, fsync it, link it if absent, fsync the folder."""
        target = self.folder / name
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            self._refuse_link(name.rpartition("/")[0])
            _make_folder(target.parent)
            _write_synced(temporary, data)
            if not _link_if_absent(temporary, target):
                return False
            _sync_folder(target.parent)
            return True
        except OSError as error:
            raise StoreError(_cannot_publish(target, len(data), error)) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def read(self, name: str) -> bytes:
        """Read one file; a symbolic link is not followed."""
        path = self.folder / name
        with _refusals("read", path):
            self._refuse_link(name.rpartition("/")[0])
            with open(path, "rb", opener=_no_link) as file:
                return file.read()

    def names(self, folder: str = "") -> list[str]:
        """List a folder; an absent one is empty."""
        try:
            with _refusals("list", self.folder / folder):
                self._refuse_link(folder)
                return sorted(os.listdir(self.folder / folder))  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []

    def listed(self) -> list[Listed]:
        """List the files of the folder; an absent one is empty."""
        try:
            with _refusals("list", self.folder), os.scandir(self.folder) as entries:
                return sorted(filter(None, map(_listed, entries)), key=lambda file: file.name)
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        """Remove one file."""
        with _refusals("delete", self.folder / name):
            self._refuse_link(name.rpartition("/")[0])
            (self.folder / name).unlink(missing_ok=True)

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open Parquet files as one dataset, after a look at the footer of each."""
        for name in names:
            with open(self.folder / name, "rb", buffering=0, opener=_no_link) as file:
                check_footer(file)
        return pyarrow.dataset.dataset([str(self.folder / name) for name in names], format=CHECKED)

    def check_writable(self) -> None:
        """Refuse a path whose nearest existing ancestor is no folder or may not be written to, and links in it."""
        there = next(path for path in (self.folder, *self.folder.parents) if os.path.lexists(path))
        if not there.is_dir():
            raise ConfigError.one("output.path", f"'{there}' is not a folder", "choose another path")
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError.one("output.path", f"'{there}' may not be written to", "choose another path")
        for name in (name for name in self.names() if name.startswith("_") and (self.folder / name).is_symlink()):
            raise ConfigError.one("output.path", f"'{self.folder / name}' is a link, {_NOT_FOLLOWED}", "remove it")

    def _refuse_link(self, folder: str) -> None:
        """Refuse a folder within the run that is a link; raises OSError."""
        if folder and (self.folder / folder).is_symlink():
            raise OSError(errno.ELOOP, f"{self.folder / folder} is a link, {_NOT_FOLLOWED}")


def open_store(url: str) -> Store:
    """Open the place that a run folder's path or URL names: a folder, or a prefix in an object store.

    Raises:
        ConfigError: the scheme is not supported, or no bucket is named.
    """
    scheme, found, rest = url.partition("://")
    if found and scheme != "file":
        from pipeline.object_store import ObjectStore  # torch images without obstore still explain

        return ObjectStore(url)
    return LocalStore(Path(rest if found else url).expanduser())


def is_unanswered(error: BaseException) -> bool:
    """Whether a store did not answer, which says nothing of what lies there: it may be sound.

    What nobody can read (a link, a folder, a broken disk) is an answer.
    """
    cause = error.__cause__
    return isinstance(error, StoreError) and not (isinstance(cause, OSError) and cause.errno in _UNREADABLE)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, so that they are still there after a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link_if_absent(temporary: Path, target: Path) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if os.path.lexists(target):  # another driver published the target and swept our temporary
            return False
        raise
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _listed(entry: "os.DirEntry[str]") -> Listed | None:
    """What is known of a file; None for a folder, a link, and a temporary that has gone meanwhile."""
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return Listed(entry.name, facts.st_size, facts.st_mtime) if entry.is_file(follow_symlinks=False) else None


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


@contextlib.contextmanager
def _refusals(verb: str, path: Path) -> Iterator[None]:
    """Turn what the file system refuses into our sentences; what is absent stays FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    except OSError as error:
        raise StoreError(f"cannot {verb} {path}: {error.strerror or error}") from error


def _cannot_publish(target: Path, size: int, error: OSError) -> str:
    return (
        f"cannot publish {target} ({size} bytes): {error.strerror or error}. A file under that name is there whole or "
        "not at all, and finished chunks are kept; make room or mend the folder, then run the same command again."
    )
