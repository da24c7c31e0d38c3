"""Part files: encodes the rows of a chunk as Parquet, checks and publishes them, and lists what is finished."""

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
from schemas.explanation import METADATA_FIELD, SCHEMA_VERSION, explanation_schema, metric_names

_PREFIX = "camatlas."
_PARALLEL_READS = 16
"""Footers read in parallel, because a remote store has high latency."""
KEY_COLUMNS = ["shard", "image_key", "target", "method"]
"""Columns that identify a row; target and method are null in the failure row of an image."""


@dataclass(frozen=True)
class Footer:
    """The metadata of a part: its place in the run, stored as Parquet key-value metadata."""

    run_id: str
    shard: int
    chunk: int
    last_chunk: bool
    images: int
    """Images of the chunk, including failed ones; rows that report damage to the shard do not count."""
    schema_version: int = SCHEMA_VERSION

    def to_metadata(self) -> dict[str, str]:
        """Convert the footer to Parquet key-value metadata."""
        return {f"{_PREFIX}{name}": str(int(v) if isinstance(v, bool) else v) for name, v in self.__dict__.items()}

    def contradictions(self, part: PartName, run_id: str, earlier: frozenset[str] = frozenset()) -> Iterator[str]:
        """Yield how this footer contradicts the part's name or run, as when another part was copied to this name.

        Args:
            part: the name.
            run_id, earlier: the id of the run, and those that it had before its limit was raised.
        """
        if self.run_id != run_id and self.run_id not in earlier:
            yield f"belongs to run {self.run_id}, not {run_id}"
        if (self.shard, self.chunk) != (part.shard, part.chunk):
            yield f"holds shard {self.shard} chunk {self.chunk}, which does not match its name"

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None) -> "Footer":
        """Parse the footer; raise ValueError when it is missing or incomplete."""
        fields = {key.decode(): value.decode() for key, value in (metadata or {}).items()}
        try:
            return cls(
                fields[f"{_PREFIX}run_id"],
                int(fields[f"{_PREFIX}shard"]),
                int(fields[f"{_PREFIX}chunk"]),
                bool(int(fields[f"{_PREFIX}last_chunk"])),
                int(fields[f"{_PREFIX}images"]),
                int(fields[f"{_PREFIX}schema_version"]),
            )
        except KeyError as error:
            raise ValueError(f"the footer has no {error}") from None


def encode_part(table: pa.Table, footer: Footer) -> bytes:
    """Encode rows as the bytes of a part, and check that they read back unchanged.

    Raises:
        ValueError: the rows do not have the schema of a part, repeat a key, or do not read back unchanged.
    """
    _check_rows(table)
    metadata = {**(table.schema.metadata or {}), **footer.to_metadata()}
    dictionary = [name for name in table.schema.names if name not in ("map", "image_key")]
    data = checksummed(table.replace_schema_metadata(metadata), use_dictionary=dictionary)
    if not read_part(data)[0].equals(table):
        raise ValueError("the part does not read back unchanged")
    return data


def read_part(data: bytes) -> tuple[pa.Table, Footer]:
    """Read the rows and the footer of a part.

    Raises:
        ValueError: the bytes are not a part, or are damaged.
    """
    with _as_value_error():
        table = open_checksummed(data).read()
    footer = Footer.from_metadata(table.schema.metadata)
    return table.replace_schema_metadata(None), footer


def read_footer(data: bytes) -> Footer:
    """Read only the footer of a part; raise ValueError when the bytes are not a part, or are damaged."""
    with _as_value_error():
        check_footer(io.BytesIO(data))
        metadata = pq.read_metadata(io.BytesIO(data)).metadata
    return Footer.from_metadata(metadata)


def publish_part(store: Store, table: pa.Table, footer: Footer) -> Receipt | None:
    """Commit a chunk: publish its part, then its receipt; return None if the part was already published."""
    name = PartName(footer.shard, footer.chunk)
    data = encode_part(table, footer)
    if not store.publish(name.file, data):
        return None
    receipt = Receipt.of(name, data, table.num_rows)
    if not store.publish(name.receipt, receipt.to_json()):  # a stale receipt of a part deleted since
        store.delete(name.receipt)
        store.publish(name.receipt, receipt.to_json())
    return receipt


def sweep(store: Store) -> None:
    """Remove temporary files whose target is published: their writers died, or lost the race.

    If a writer died between publishing a part and its receipt, the receipt is written first.
    """
    for folder in ("", RECEIPTS):
        published = set(store.names(folder))
        for temporary, target in temporaries(store, folder):
            if target.rpartition("/")[2] in published or _restore_receipt(store, target):
                store.delete(temporary)


def forget_strays(store: Store) -> None:
    """Remove receipts without a part from a complete run: their parts did not belong to it."""
    for part in published_parts(store).difference(part_names(store)):
        store.delete(part.receipt)


def _restore_receipt(store: Store, name: str) -> bool:
    """Write the lost receipt of an intact part; return False if there is no such part."""
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
    """The finished work in a run folder."""

    done: dict[int, frozenset[int]]
    """Finished chunks by shard ordinal."""
    finished: frozenset[int]
    """Shards whose chunks are all there."""


def progress(store: Store) -> Progress:
    """List the finished chunks and shards; reads one part per shard.

    Raises:
        DamagedRunError: a part's footer cannot be read.
    """
    done: dict[int, set[int]] = {}
    for part in part_names(store):
        done.setdefault(part.shard, set()).add(part.chunk)
    ends = [PartName(shard, max(chunks)) for shard, chunks in done.items() if len(chunks) == max(chunks) + 1]
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        footers = pool.map(partial(stored_footer, store), ends)
        finished = {part.shard for part, footer in zip(ends, footers, strict=True) if footer.last_chunk}
    return Progress({shard: frozenset(chunks) for shard, chunks in done.items()}, frozenset(finished))


def run_ids(store: Store, parts: Sequence[PartName]) -> set[str]:
    """Return the ids of the runs that these parts belong to; reads each part.

    Raises:
        DamagedRunError: a part's footer cannot be read.
    """
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        return {footer.run_id for footer in pool.map(partial(stored_footer, store), parts)}


def stored_footer(store: Store, part: PartName) -> Footer:
    """Read the footer of a part; raise DamagedRunError if it cannot be read."""
    try:
        return read_footer(store.read(part.file))
    except ValueError as error:
        raise DamagedRunError(
            f"{store.url}/{part.file} is damaged ({error}). Its rows cannot be trusted. `camatlas verify` lists all "
            "damage; `camatlas verify --repair` deletes damaged files and explains their images again."
        ) from None


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Turn pyarrow's many exceptions for damaged bytes, including OSError, into ValueError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(first_line(error)) from None


def _check_rows(table: pa.Table) -> None:
    fields = [table.schema.field(name) for name in metric_names(table.schema)]
    expected = explanation_schema(fields, has_metadata=METADATA_FIELD.name in table.schema.names)
    if not table.schema.equals(expected):
        raise ValueError("the rows do not have the schema of a part")
    keys = table.select(KEY_COLUMNS).group_by(KEY_COLUMNS).aggregate([([], "count_all")])
    if keys.num_rows != table.num_rows:
        raise ValueError("two rows of one chunk have the same key")
