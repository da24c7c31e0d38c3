"""The record of a compaction: which merged files hold the rows of which parts of a run."""

import hashlib
import json
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from schemas.manifest import canonical_json, digest_of

RECORD_VERSION = 1

Chunk = tuple[int, int]
"""Shard ordinal and chunk ordinal, which identify a part."""


class OtherVersionError(ValueError):
    """The record has a version that this code cannot read."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MergedFile(_Frozen):
    """One published file of merged rows."""

    name: str
    sha256: str
    size: int
    """Bytes."""
    rows: int
    first_key: str
    """Smallest image key in the file."""
    last_key: str
    """Largest image key in the file."""


class CompactionRecord(_Frozen):
    """The files of a merged copy, and the parts whose rows they hold."""

    run_id: str
    files: tuple[MergedFile, ...]
    parts: tuple[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], ...]
    """Shard, first chunk and last chunk of every unbroken range of parts, in order."""
    parts_sha256: str
    """Digest of the digests of those parts, see `PartsDigest`."""

    @property
    def rows(self) -> int:
        """Return the number of rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def parts_count(self) -> int:
        """Return the number of parts whose rows the files hold."""
        return sum(1 + last - first for _, first, last in self.parts)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the parts whose rows the files hold, in order."""
        for shard, first, last in self.parts:
            yield from ((shard, chunk) for chunk in range(first, last + 1))

    def to_json(self) -> bytes:
        """Serialise the record as canonical JSON, with its version and its own digest."""
        fields = {"version": RECORD_VERSION, **self.model_dump()}
        return canonical_json({**fields, "sha256": digest_of(fields)}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "CompactionRecord":
        """Parse a record and check its digest, because a single wrong range would duplicate rows.

        Raises:
            OtherVersionError: the record has another version.
            ValueError: the text is not a record, or was changed after it was written.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("a record is a JSON object")
        if fields.get("version") != RECORD_VERSION:
            raise OtherVersionError(f"version {fields.get('version')}, known is {RECORD_VERSION}")
        if fields.pop("sha256", None) != digest_of(fields):
            raise ValueError("it was changed after it was written")
        del fields["version"]
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            places = [".".join(map(str, problem["loc"])) for problem in error.errors()]
            raise ValueError(f"fields are missing or wrong: {', '.join(places)}") from None


class PartsDigest:
    """Incremental digest over the digests of many parts, so that they need not be kept in memory."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, file: str, sha256: str) -> None:
        """Add the next part; parts are added in the order of their names."""
        self._hash.update(f"{file} {sha256}\n".encode())

    def hexdigest(self) -> str:
        """Return the digest of all parts added so far."""
        return self._hash.hexdigest()


def ranges(chunks: Iterable[Chunk]) -> tuple[tuple[int, int, int], ...]:
    """Compress sorted parts into ranges (shard, first chunk, last chunk)."""
    found: list[tuple[int, int, int]] = []
    for shard, chunk in chunks:
        if found and found[-1][0] == shard and found[-1][2] == chunk - 1:
            found[-1] = (shard, found[-1][1], chunk)
        else:
            found.append((shard, chunk, chunk))
    return tuple(found)
