"""The run folder: what lies in it under which name, to whom it belongs, and its receipts.

RUN/run.json                        the manifest
RUN/part-SSSSS-CCC.parquet          all rows of one chunk; publishing it IS the commit
RUN/_receipts/part-SSSSS-CCC.json   sha256, bytes and rows of a part; serves verify only
RUN/.part-*.tmp                     a part being written; invisible to every Parquet reader
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ConfigError, DamagedRunError
from pipeline.storage.base import Store
from schemas.manifest import RunManifest, canonical_json

MANIFEST = "run.json"
RECEIPTS = "_receipts"
_PART = re.compile(r"part-([0-9]{5,})-([0-9]{3,})\.parquet")
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp")


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
        part = cls(int(match[1]), int(match[2])) if match else None
        return part if part and part.file == file else None


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
        receipt = cls(**json.loads(text))
        if [type(value) for value in receipt.__dict__.values()] != [str, str, int, int]:
            raise TypeError("a field is of the wrong type")
        return receipt


def is_temporary(name: str) -> bool:
    """Tell whether a file is one that is being written, or was when its writer died."""
    return _TEMPORARY.fullmatch(name) is not None


def part_names(store: Store) -> list[PartName]:
    """List the published parts in order."""
    return sorted(part for name in store.names() if (part := PartName.parse(name)))


def published_parts(store: Store) -> frozenset[PartName]:
    """The parts that have a receipt: they were published, whether they are still there or not."""
    names = (name.replace(".json", ".parquet") for name in store.names(RECEIPTS))
    return frozenset(part for name in names if (part := PartName.parse(name)))


def whole_part_names(store: Store) -> list[PartName]:
    """List the published parts in order, all of which must still be there.

    Raises:
        DamagedRunError: a part has gone, its receipt is still there.
    """
    published = published_parts(store)  # first: a part that comes between the two listings has its receipt later still
    parts = part_names(store)
    lost = published.difference(parts)
    if lost:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise DamagedRunError(
            f"{store.url}/{min(lost).file} has gone{more}: it was published, its receipt is there. Answers would lack "
            "its rows. Run `camatlas verify --repair`, or the same `camatlas explain` again: both explain them anew."
        )
    return parts


def read_manifest(store: Store) -> RunManifest:
    """Read the manifest of a run folder.

    Raises:
        ConfigError: there is none.
        DamagedRunError: it is not what was written, or there is none beside parts.
    """
    if there := manifest_there(store):
        return there
    if parts := part_names(store):
        raise DamagedRunError(
            f"{store.url} has lost its {MANIFEST}; {len(parts)} parts are there. Without it no number of this run can "
            "be traced. Run the same `camatlas explain` again, which writes it anew when the parts are those of that "
            "run; or restore it from a backup."
        )
    raise ConfigError.one("RUN", f"'{store.url}' is not a run folder: it has no {MANIFEST}")


def manifest_there(store: Store) -> RunManifest | None:
    """Ask for the manifest itself, a listing may not show it yet; None when there is none.

    Raises:
        DamagedRunError: it is not what was written.
    """
    try:
        return RunManifest.from_json(store.read(MANIFEST))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedRunError(
            f"{store.url}/{MANIFEST} is damaged: {error}. Until it is whole no number of this run can be traced. "
            "Restore it from a backup; or delete it and run the same `camatlas explain` again, which writes it anew "
            "when the parts there are those of that run."
        ) from None


def temporaries(store: Store, folder: str = "") -> Iterator[tuple[str, str]]:
    """Give the name of every temporary in a folder, and of the file that it would have become."""
    place = f"{folder}/" if folder else ""
    for name in store.names(folder):
        if match := _TEMPORARY.fullmatch(name):
            yield place + name, place + match[1]


def receipts(store: Store) -> Iterator[tuple[str, bytes]]:
    """Give the name and text of every receipt."""
    for name in store.names(RECEIPTS):
        if not name.startswith("."):
            yield name, store.read(f"{RECEIPTS}/{name}")
