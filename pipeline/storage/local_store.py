"""A run folder on a local or shared file system.

A name is published all at once or not at all, so a retry, a zombie or a second driver can only lose the race.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.dataset

from pipeline.errors import ConfigError, StoreError
from pipeline.storage.base import Listed
from pipeline.storage.checksums import CHECKED, check_footer

_NOT_FOLLOWED = "and none is followed within a run folder"


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
