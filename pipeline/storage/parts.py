"""One part file: the rows of a chunk as Parquet bytes, checked before they are published and after."""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DamagedRunError, first_line
from pipeline.storage.base import Store
from pipeline.storage.checksums import check_footer, checksummed, open_checksummed
from pipeline.storage.run_folder import RECEIPTS, PartName, Receipt, part_names, published_parts, temporaries
from schemas.explanation import SCHEMA_VERSION, explanation_schema, metric_names

_PREFIX = "camatlas."
_AT_ONCE = 16
"""Footers read at the same time: a store far away answers slowly, and many at once."""
KEY_COLUMNS = ["shard", "image_key", "target", "method"]
"""What identifies a row; a failure row of an image has neither target nor method."""


@dataclass(frozen=True)
class Footer:
    """What a part says of itself in its Parquet metadata."""

    run_id: str
    shard: int
    chunk: int
    last_chunk: bool
    images: int
    """Images of the chunk, failed ones included; damage rows are no images."""
    schema_version: int = SCHEMA_VERSION

    def to_metadata(self) -> dict[str, str]:
        """Write the footer as Parquet key-value metadata."""
        return {f"{_PREFIX}{name}": str(int(v) if isinstance(v, bool) else v) for name, v in self.__dict__.items()}

    def contradictions(self, part: PartName, run_id: str) -> Iterator[str]:
        """Say where this is not the footer of this part of this run: another one was copied to its place."""
        if self.run_id != run_id:
            yield f"belongs to run {self.run_id}, not {run_id}"
        if (self.shard, self.chunk) != (part.shard, part.chunk):
            yield f"holds shard {self.shard} chunk {self.chunk}, not what its name says"

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None) -> "Footer":
        """Read the footer; raises ValueError when it is missing or incomplete."""
        found = {key.decode(): value.decode() for key, value in (metadata or {}).items()}
        try:
            return cls(
                found[f"{_PREFIX}run_id"],
                int(found[f"{_PREFIX}shard"]),
                int(found[f"{_PREFIX}chunk"]),
                bool(int(found[f"{_PREFIX}last_chunk"])),
                int(found[f"{_PREFIX}images"]),
                int(found[f"{_PREFIX}schema_version"]),
            )
        except KeyError as error:
            raise ValueError(f"the footer has no {error}") from None


def encode_part(table: pa.Table, footer: Footer) -> bytes:
    """Write rows as the bytes of a part, and read them back once to be sure.

    Raises:
        ValueError: the rows do not have the schema of a part, repeat a key, or do not read back the same.
    """
    _check_rows(table)
    metadata = {**(table.schema.metadata or {}), **footer.to_metadata()}
    dictionary = [name for name in table.schema.names if name not in ("map", "image_key")]
    data = checksummed(table.replace_schema_metadata(metadata), use_dictionary=dictionary)
    if not read_part(data)[0].equals(table):
        raise ValueError("the part does not read back as it was written")
    return data


def read_part(data: bytes) -> tuple[pa.Table, Footer]:
    """Read the rows and the footer of a part.

    Raises:
        ValueError: the bytes are not a part, or not as they were written.
    """
    with _as_value_error():
        table = open_checksummed(data).read()
    footer = Footer.from_metadata(table.schema.metadata)
    return table.replace_schema_metadata(None), footer


def read_footer(data: bytes) -> Footer:
    """Read only the footer of a part; raises ValueError when it is none."""
    with _as_value_error():
        check_footer(io.BytesIO(data))
        metadata = pq.read_metadata(io.BytesIO(data)).metadata
    return Footer.from_metadata(metadata)


def publish_part(store: Store, table: pa.Table, footer: Footer) -> Receipt | None:
    """Commit a chunk: publish its part if absent, then its receipt. None when somebody else was first."""
    name = PartName(footer.shard, footer.chunk)
    data = encode_part(table, footer)
    if not store.publish(name.file, data):
        return None
    receipt = Receipt.of(name, data, table.num_rows)
    if not store.publish(name.receipt, receipt.to_json()):  # of a part that was deleted since
        store.delete(name.receipt)
        store.publish(name.receipt, receipt.to_json())
    return receipt


def sweep(store: Store) -> None:
    """Remove temporaries whose target is published: their writers died, or lost the race.

    A receipt that died with its writer, after the part, is written first; nobody else would.
    """
    for folder in ("", RECEIPTS):
        there = set(store.names(folder))
        for temporary, target in temporaries(store, folder):
            if target.rpartition("/")[2] in there or _receipt_again(store, target):
                store.delete(temporary)


def forget_strays(store: Store) -> None:
    """Remove receipts without a part from a run that is complete: what they are about was no part of it."""
    for part in published_parts(store).difference(part_names(store)):
        store.delete(part.receipt)


def _receipt_again(store: Store, name: str) -> bool:
    """Write a lost receipt of a part that is there and sound; False when there is none."""
    part = PartName.parse(name.removeprefix(f"{RECEIPTS}/").replace(".json", ".parquet"))
    try:
        data = store.read(part.file) if part and part.receipt == name else b""
        rows = read_part(data)[0].num_rows
    except (FileNotFoundError, ValueError):
        return False
    assert part is not None
    store.publish(name, Receipt.of(part, data, rows).to_json())
    return True


@dataclass(frozen=True)
class Progress:
    """What a run folder holds already."""

    done: dict[int, frozenset[int]]
    """Finished chunks by shard ordinal."""
    finished: frozenset[int]
    """Shards of which nothing is missing."""


def progress(store: Store) -> Progress:
    """List what is done; opens one part per shard.

    Raises:
        DamagedRunError: a part's footer cannot be read.
    """
    done: dict[int, set[int]] = {}
    for part in part_names(store):
        done.setdefault(part.shard, set()).add(part.chunk)
    whole = [PartName(shard, max(chunks)) for shard, chunks in done.items() if len(chunks) == max(chunks) + 1]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        footers = pool.map(partial(_footer, store), whole)
        finished = {part.shard for part, footer in zip(whole, footers, strict=True) if footer.last_chunk}
    return Progress({shard: frozenset(chunks) for shard, chunks in done.items()}, frozenset(finished))


def run_ids(store: Store, parts: Sequence[PartName]) -> set[str]:
    """Give the runs that these parts say they are of; opens each of them.

    Raises:
        DamagedRunError: a part's footer cannot be read.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {footer.run_id for footer in pool.map(partial(_footer, store), parts)}


def _footer(store: Store, part: PartName) -> Footer:
    try:
        return read_footer(store.read(part.file))
    except ValueError as error:
        raise DamagedRunError(
            f"{store.url}/{part.file} is damaged ({error}). Its rows cannot be trusted; `camatlas verify` shows the "
            "whole extent, and with --repair it deletes what is damaged and explains it anew."
        ) from None


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Damaged bytes make pyarrow raise exceptions of many kinds, OSError among them."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(first_line(error)) from None


def _check_rows(table: pa.Table) -> None:
    expected = explanation_schema([table.schema.field(name) for name in metric_names(table.schema)])
    if not table.schema.equals(expected):
        raise ValueError("the rows do not have the schema of a part")
    keys = table.select(KEY_COLUMNS).group_by(KEY_COLUMNS).aggregate([([], "count_all")])
    if keys.num_rows != table.num_rows:
        raise ValueError("two rows of one chunk have the same key")
