"""What is known of a shard before it is read: kind, rows, and a digest that changes when it is written anew."""

import hashlib
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.shards import ShardKind

KINDS: dict[str, ShardKind] = {".tar": "tar", ".parquet": "parquet"}
EDGE_BYTES = 64 << 10


def edges_digest(file: BinaryIO, size: int) -> str:
    """Hash the size, the first and the last 64 KiB: cheap, and it notices a shard written anew."""
    head = file.read(EDGE_BYTES)
    if size <= EDGE_BYTES:
        return digest(str(size).encode() + head + head)
    file.seek(size - EDGE_BYTES)
    return digest(str(size).encode() + head + file.read(EDGE_BYTES))


def digest(data: bytes) -> str:
    """Write a hash as a manifest shows it."""
    return hashlib.sha256(data).hexdigest()[:16]


def parquet_rows(source: Path | BinaryIO) -> int | None:
    """Read how many rows a Parquet file has; None when it does not tell."""
    try:
        rows: int = pq.read_metadata(source).num_rows
        return rows
    except (pa.ArrowException, OSError):
        return None  # reading it will tell what is wrong, as a failure row
