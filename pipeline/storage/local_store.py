"""A run folder on a local or shared file system.

Publishing is atomic and never overwrites, so a retry, a zombie process or a second driver can only lose the race.
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
from pipeline.storage.checksums import CHECKED_FORMAT, check_footer

_NOT_FOLLOWED = "links inside a run folder are not followed"


class LocalStore:
    """A folder on a local or shared file system that has hard links.

    The path to the folder may contain symbolic links. Inside the folder no link is followed, so that nothing outside
    is read, written or deleted.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps symbolic links in the user's path
        self.url = str(self.folder)

    def publish(self, name: str, data: bytes) -> bool:
        """Write and fsync a hidden temporary file, hard-link it to its name unless taken, fsync the folder."""
        target = self.folder / name
        temporary = _hidden(target)
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

    def replace(self, name: str, data: bytes) -> None:
        """Write and fsync a hidden temporary file, rename it, fsync the folder."""
        target = self.folder / name
        temporary = _hidden(target)
        try:
            self._refuse_link(name.rpartition("/")[0])
            _write_synced(temporary, data)
            temporary.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            raise StoreError(_cannot_publish(target, len(data), error)) from error
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """Read one file, without following symbolic links."""
        path = self.folder / name
        with _translated_errors("read", path):
            self._refuse_link(name.rpartition("/")[0])
            with open(path, "rb", opener=_open_no_follow) as file:
                return file.read()

    def names(self, folder: str = "") -> list[str]:
        """List the names in a folder, sorted; return an empty list if the folder does not exist."""
        try:
            with _translated_errors("list", self.folder / folder):
                self._refuse_link(folder)
                return sorted(os.listdir(self.folder / folder))  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []

    def listed(self) -> list[Listed]:
        """List the files of the run folder; return an empty list if it does not exist."""
        try:
            with _translated_errors("list", self.folder), os.scandir(self.folder) as entries:
                return sorted(filter(None, map(_file_entry, entries)), key=lambda file: file.name)
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        """Remove one file."""
        with _translated_errors("delete", self.folder / name):
            self._refuse_link(name.rpartition("/")[0])
            (self.folder / name).unlink(missing_ok=True)

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open Parquet files as one dataset, after verifying the footer of each."""
        for name in names:
            with open(self.folder / name, "rb", buffering=0, opener=_open_no_follow) as file:
                check_footer(file)
        return pyarrow.dataset.dataset([str(self.folder / name) for name in names], format=CHECKED_FORMAT)

    def check_writable(self) -> None:
        """Raise ConfigError if the nearest existing ancestor is not a writable folder, or a run subfolder is a link."""
        ancestor = next(path for path in (self.folder, *self.folder.parents) if os.path.lexists(path))
        if not ancestor.is_dir():
            raise ConfigError.one("output.path", f"'{ancestor}' is not a folder", "choose another path")
        if not os.access(ancestor, os.R_OK | os.W_OK | os.X_OK):
            raise ConfigError.one("output.path", f"'{ancestor}' is not writable", "choose another path")
        for name in (name for name in self.names() if name.startswith("_") and (self.folder / name).is_symlink()):
            raise ConfigError.one("output.path", f"'{self.folder / name}' is a link; {_NOT_FOLLOWED}", "remove it")

    def _refuse_link(self, folder: str) -> None:
        """Raise OSError if a folder inside the run is a symbolic link."""
        if folder and (self.folder / folder).is_symlink():
            raise OSError(errno.ELOOP, f"{self.folder / folder} is a link; {_NOT_FOLLOWED}")


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents and fsync them, so that they survive a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _hidden(target: Path) -> Path:
    """Return a new name for a temporary file beside its target."""
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")


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
        if os.path.lexists(target):  # another driver published the target and removed our temporary file
            return False
        raise
    return True


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_entry(entry: "os.DirEntry[str]") -> Listed | None:
    """Describe a file; return None for a folder, a link, or a file deleted since the listing."""
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    return Listed(entry.name, info.st_size, info.st_mtime) if entry.is_file(follow_symlinks=False) else None


def _open_no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


@contextlib.contextmanager
def _translated_errors(verb: str, path: Path) -> Iterator[None]:
    """Turn OSError into StoreError, but let FileNotFoundError pass."""
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
        f"cannot publish {target} ({size} bytes): {error.strerror or error}. The file is either complete or absent, "
        "and finished chunks are kept. Free up space or repair the folder, then run the same command again."
    )
