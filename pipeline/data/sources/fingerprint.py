"""What is known of a shard before it is read: kind, rows, and a digest that changes when it is written anew."""

import hashlib
from typing import BinaryIO

from pipeline.data.sources.shards import ShardKind

KINDS: dict[str, ShardKind] = {".tar": "tar", ".parquet": "parquet"}
EDGE_BYTES = 64 << 10
_MOST_FOOTER_BYTES = 64 << 20
_FRAME_BYTES = 8
"""What ends a Parquet file: the length of its footer, and four letters."""


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


def parquet_footer(file: BinaryIO, size: int) -> bytes:
    """Read the end of a Parquet file, from its footer on, without understanding it; empty where there can be none."""
    if size < _FRAME_BYTES:
        return b""
    file.seek(size - _FRAME_BYTES)
    length = int.from_bytes(file.read(4), "little") + _FRAME_BYTES
    if length > min(size, _MOST_FOOTER_BYTES):
        return b""
    file.seek(size - length)
    return file.read(length)
