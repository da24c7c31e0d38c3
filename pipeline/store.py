"""The run folder: names, publish-if-absent, listing, receipts.

    RUN/run.json                        the manifest
    RUN/part-SSSSS-CCC.parquet          all rows of one chunk; publishing it IS the commit
    RUN/_receipts/part-SSSSS-CCC.json   sha256, bytes and rows of a part; serves verify only
    RUN/.part-*.tmp                     a part being written; invisible to every Parquet reader

A part is published whole and only if absent, so a retry, a zombie or a second driver can only lose the race.
"""

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import ConfigError, DamagedRunError, StoreError
from schemas.manifest import RunManifest, canonical_json, differences

MANIFEST = "run.json"
RECEIPTS = "_receipts"
_PART = re.compile(r"part-(\d{5,})-(\d{3,})\.parquet")
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")


class Store(Protocol):
    """What a run needs of a place: a handful of verbs over flat names, on disk or in an object store."""

    url: str

    def publish(self, name: str, data: bytes) -> bool:
        """Make `data` appear under `name` whole and only if nothing is there; False when something is."""
        ...

    def read(self, name: str) -> bytes:
        """Read one object; raises FileNotFoundError when it is absent."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """List the names directly in a folder, hidden ones included, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove one object if it is there."""
        ...

    def check_writable(self) -> None:
        """Refuse a place that cannot take a run, without writing; raises ConfigError."""
        ...


class LocalStore:
    """A folder on a local or shared file system that has hard links."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - the name the user gave, links kept
        self.url = str(self.folder)

    def publish(self, name: str, data: bytes) -> bool:
        """Write a hidden temporary, fsync it, link it if absent, fsync the folder."""
        target = self.folder / name
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_synced(temporary, data)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            _sync_folder(target.parent)
            return True
        except OSError as error:
            raise StoreError(_cannot_publish(target, len(data), error)) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def read(self, name: str) -> bytes:
        """Read one file."""
        return (self.folder / name).read_bytes()

    def names(self, folder: str = "") -> list[str]:
        """List a folder; an absent one is empty."""
        try:
            return sorted(os.listdir(self.folder / folder))  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        """Remove one file."""
        (self.folder / name).unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Refuse a path whose nearest existing ancestor is no folder or may not be written to."""
        there = next(path for path in (self.folder, *self.folder.parents) if os.path.lexists(path))
        if not there.is_dir():
            raise ConfigError.one("output.path", f"'{there}' is not a folder", "choose another path")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConfigError.one("output.path", f"'{there}' may not be written to", "choose another path")


@dataclass(frozen=True, order=True)
class PartName:
    """The place of a chunk in a run: shard ordinal and chunk ordinal."""

    shard: int
    chunk: int

    @property
    def file(self) -> str:
        """File name of the part."""
        return f"part-{self.shard:05d}-{self.chunk:03d}.parquet"

    @property
    def receipt(self) -> str:
        """Name of the receipt within the run folder."""
        return f"{RECEIPTS}/part-{self.shard:05d}-{self.chunk:03d}.json"

    @classmethod
    def parse(cls, file: str) -> "PartName | None":
        """Read a file name; None when it is not a part."""
        match = _PART.fullmatch(file)
        return cls(int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True)
class Receipt:
    """What was published: enough to notice later that a part changed."""

    part: str
    sha256: str
    size: int
    """Bytes."""
    rows: int

    @classmethod
    def of(cls, part: PartName, data: bytes, rows: int) -> "Receipt":
        """Make the receipt of a part's bytes."""
        return cls(part.file, hashlib.sha256(data).hexdigest(), len(data), rows)

    def to_json(self) -> bytes:
        """Write the receipt as canonical JSON."""
        return canonical_json(self.__dict__).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Receipt":
        """Read a receipt; raises ValueError or TypeError when it is none."""
        return cls(**json.loads(text))


def open_store(url: str) -> Store:
    """Open the place that a run folder's path or URL names.

    Raises:
        ConfigError: the scheme is not supported.
    """
    scheme, found, rest = url.partition("://")
    if found and scheme != "file":
        raise ConfigError.one("output.path", f"'{url}': only local folders are written so far", "give a path")
    return LocalStore(Path(rest if found else url).expanduser())


def part_names(store: Store) -> list[PartName]:
    """List the published parts in order."""
    return sorted(part for name in store.names() if (part := PartName.parse(name)))


def read_manifest(store: Store) -> RunManifest:
    """Read the manifest of a run folder.

    Raises:
        ConfigError: there is none.
        DamagedRunError: it is not what was written.
    """
    try:
        return RunManifest.from_json(store.read(MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError.one("RUN", f"'{store.url}' is not a run folder: it has no {MANIFEST}") from None
    except OSError as error:
        raise StoreError(f"cannot read {store.url}/{MANIFEST}: {error.strerror}") from None
    except ValueError as error:
        raise DamagedRunError(
            f"{store.url}/{MANIFEST} is damaged: {error}. No number of this run can be traced any more; "
            "restore the file from a backup or start the run anew in another folder."
        ) from None


def claim(store: Store, manifest: RunManifest) -> bool:
    """Make the folder belong to this run; True when it is new, False when the run is resumed.

    Raises:
        ConfigError: the folder holds another run, or files that are no run.
    """
    check_claim(store, manifest)
    return store.publish(MANIFEST, manifest.to_json())


def check_claim(store: Store, manifest: RunManifest) -> None:
    """Refuse a folder that holds another run, or files that are no run, without writing anything."""
    names = store.names()
    if MANIFEST in names:
        there = read_manifest(store)
        if there.run_id != manifest.run_id:
            fields = ", ".join(differences(manifest.identity, there.identity))
            raise ConfigError.one(
                "output.path",
                f"'{store.url}' holds another run ({there.run_id}); it differs in: {fields}",
                "choose another folder, or the run file that made this one",
            )
    elif foreign := [name for name in names if not _TEMPORARY.fullmatch(name)]:
        raise ConfigError.one(
            "output.path",
            f"'{store.url}' is not empty and holds no run (found '{foreign[0]}')",
            "choose an empty folder",
        )


def sweep(store: Store) -> None:
    """Remove temporaries whose part is published: their writers died, or lost the race."""
    for folder in ("", RECEIPTS):
        there = set(store.names(folder))
        for name in there:
            match = _TEMPORARY.fullmatch(name)
            if match and match[1] in there:
                store.delete(f"{folder}/{name}" if folder else name)


def receipts(store: Store) -> Iterator[tuple[str, bytes]]:
    """Give the name and text of every receipt."""
    for name in store.names(RECEIPTS):
        if not name.startswith("."):
            yield name, store.read(f"{RECEIPTS}/{name}")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_publish(target: Path, size: int, error: OSError) -> str:
    return (
        f"cannot publish {target} ({size} bytes): {error.strerror or error}. Nothing of this chunk is visible and "
        "finished chunks are kept; make room or mend the folder, then run the same command again to resume."
    )
