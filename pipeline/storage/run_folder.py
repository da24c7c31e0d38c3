"""The layout of a run folder: file names, the manifest and receipts.

RUN/run.json                        the manifest
RUN/part-SSSSS-CCC.parquet          all rows of one chunk; publishing it is the commit
RUN/_receipts/part-SSSSS-CCC.json   sha256, bytes and rows of a part; shows later whether it is missing or changed
RUN/.part-*.tmp                     a part being written; hidden from Parquet readers
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ConfigError, DamagedRunError, StoreError
from pipeline.storage.base import Store
from schemas.manifest import RunManifest, canonical_json

MANIFEST = "run.json"
RECEIPTS = "_receipts"
_ENTRIES = 100
"""Entries of a folder in which a run is looked for, to name it in a message."""
_PART = re.compile(r"part-([0-9]{5,})-([0-9]{3,})\.parquet")
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")


@dataclass(frozen=True, order=True)
class PartName:
    """The place of a chunk in a run: shard ordinal and chunk ordinal."""

    shard: int
    chunk: int

    @property
    def file(self) -> str:
        """Return the file name of the part."""
        return f"part-{self.shard:05d}-{self.chunk:03d}.parquet"

    @property
    def receipt(self) -> str:
        """Return the path of the receipt within the run folder."""
        return f"{RECEIPTS}/part-{self.shard:05d}-{self.chunk:03d}.json"

    @classmethod
    def parse(cls, file: str) -> "PartName | None":
        """Parse a file name; return None when it is not a part's."""
        match = _PART.fullmatch(file)
        part = cls(int(match[1]), int(match[2])) if match else None
        return part if part and part.file == file else None


@dataclass(frozen=True)
class Receipt:
    """The sha256, size and number of rows of a published part, to detect later changes."""

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
        """Encode the receipt as canonical JSON."""
        return canonical_json(self.__dict__).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Receipt":
        """Parse a receipt; raise ValueError or TypeError when it is invalid."""
        receipt = cls(**json.loads(text))
        if [type(value) for value in receipt.__dict__.values()] != [str, str, int, int]:
            raise TypeError("a field has the wrong type")
        return receipt


def is_temporary(name: str) -> bool:
    """Return whether a file is temporary: it is being written, or its writer died."""
    return _TEMPORARY.fullmatch(name) is not None


def part_names(store: Store) -> list[PartName]:
    """List the published parts in order."""
    return sorted(part for name in store.names() if (part := PartName.parse(name)))


def published_parts(store: Store) -> frozenset[PartName]:
    """Return the parts that have a receipt, which proves that they were published; they may be missing now."""
    names = (name.replace(".json", ".parquet") for name in store.names(RECEIPTS))
    return frozenset(part for name in names if (part := PartName.parse(name)))


def checked_part_names(store: Store) -> list[PartName]:
    """List the published parts in order, after checking that none is missing.

    Raises:
        DamagedRunError: a part is missing although its receipt exists.
    """
    published = published_parts(store)  # before the parts: a part published in between must not look missing
    parts = part_names(store)
    lost = published.difference(parts)
    if lost:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise DamagedRunError(
            f"{store.url}/{min(lost).file} is missing{more}. It was published, since its receipt exists, and results "
            "would lack its rows. Run `camatlas verify --repair` or the same `camatlas explain` again to restore it."
        )
    return parts


def read_manifest(store: Store) -> RunManifest:
    """Read the manifest of a run folder.

    Raises:
        ConfigError: there is none.
        DamagedRunError: it is damaged, or it is missing although there are parts.
    """
    if manifest := find_manifest(store):
        return manifest
    if parts := part_names(store):
        raise DamagedRunError(
            f"{store.url} holds {len(parts)} parts, but its {MANIFEST} is missing, which says how they were computed. "
            "Restore it from a backup, or run the same `camatlas explain` again: it rewrites the manifest if the parts "
            "belong to that run."
        )
    below = [f"'{store.url}/{name}'" for name in runs_below(store)]
    hint = f"did you mean {' or '.join(below[:3])}?" if below else ""
    raise ConfigError.one("RUN", f"'{store.url}' is not a run folder: it has no {MANIFEST}", hint)


def runs_below(store: Store) -> list[str]:
    """List the subfolders that are runs, among the first entries of a folder."""
    visible = [name for name in store.names() if not name.startswith(("_", "."))]
    return [name for name in visible[:_ENTRIES] if MANIFEST in _names_in(store, name)]


def _names_in(store: Store, folder: str) -> list[str]:
    """List the names in a subfolder; none for a file, and for what cannot be listed."""
    try:
        return store.names(folder)
    except (OSError, StoreError):
        return []


def find_manifest(store: Store) -> RunManifest | None:
    """Read the manifest, or return None if there is none; a listing might not show it yet.

    Raises:
        DamagedRunError: it is damaged.
    """
    try:
        return RunManifest.from_json(store.read(MANIFEST))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedRunError(
            f"{store.url}/{MANIFEST} is damaged: {error}. Restore it from a backup, or delete it and run the same "
            "`camatlas explain` again: it rewrites the manifest if the parts belong to that run."
        ) from None


def temporaries(store: Store, folder: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path of every temporary file in a folder, and the path of its target."""
    prefix = f"{folder}/" if folder else ""
    for name in store.names(folder):
        if match := _TEMPORARY.fullmatch(name):
            yield prefix + name, prefix + match[1]


def receipts(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of every receipt."""
    for name in store.names(RECEIPTS):
        if not name.startswith("."):
            yield name, store.read(f"{RECEIPTS}/{name}")
