"""The record of a compaction: which merged files stand for which parts of a run."""

import hashlib
import json
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from schemas.manifest import canonical_json, digest_of

RECORD_VERSION = 1

Chunk = tuple[int, int]
"""Shard ordinal and chunk ordinal: a part."""


class OtherVersionError(ValueError):
    """The record was written in another form than the one that is known here."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MergedFile(_Frozen):
    """One file of merged rows, as it was published."""

    name: str
    sha256: str
    size: int
    """Bytes."""
    rows: int
    first_key: str
    """Least image key in the file."""
    last_key: str
    """Greatest image key in the file."""


class CompactionRecord(_Frozen):
    """What a merged copy consists of, and which parts it stands for."""

    run_id: str
    files: tuple[MergedFile, ...]
    parts: tuple[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], ...]
    """Shard, first chunk and last chunk of every unbroken range of parts, in order."""
    parts_sha256: str
    """Digest of the digests of those parts, see `PartsDigest`."""

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(file.rows for file in self.files)

    @property
    def parts_count(self) -> int:
        """How many parts the files stand for."""
        return sum(1 + last - first for _, first, last in self.parts)

    def chunks(self) -> Iterator[Chunk]:
        """Name the parts that the files stand for, in order."""
        for shard, first, last in self.parts:
            yield from ((shard, chunk) for chunk in range(first, last + 1))

    def to_json(self) -> bytes:
        """Write the record as canonical JSON with its version and its own digest."""
        fields = {"version": RECORD_VERSION, **self.model_dump()}
        return canonical_json({**fields, "sha256": digest_of(fields)}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "CompactionRecord":
        """Read a record and check that its digest belongs to it: one wrong range would double rows.

        Raises:
            OtherVersionError: it has another version.
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
    """The digest of many parts, made of theirs one after the other, so that none has to be kept."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, file: str, sha256: str) -> None:
        """Add the next part, in the order of their names."""
        self._hash.update(f"{file} {sha256}\n".encode())

    def hexdigest(self) -> str:
        """The digest of all parts so far."""
        return self._hash.hexdigest()


def ranges(chunks: Iterable[Chunk]) -> tuple[tuple[int, int, int], ...]:
    """Write parts, in order, as ranges (shard, first chunk, last chunk)."""
    found: list[tuple[int, int, int]] = []
    for shard, chunk in chunks:
        if found and found[-1][0] == shard and found[-1][2] == chunk - 1:
            found[-1] = (shard, found[-1][1], chunk)
        else:
            found.append((shard, chunk, chunk))
    return tuple(found)
