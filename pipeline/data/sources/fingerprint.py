"""Facts about a shard that need little reading: its kind, its Parquet footer, and a digest that detects rewriting."""

import hashlib
from typing import BinaryIO

from pipeline.data.sources.shards import ShardKind

KINDS: dict[tuple[str, ...], ShardKind] = {
    (".tar",): "tar",
    (".tar.gz", ".tgz"): "tar",
    (".parquet",): "parquet",
    (".arrow", ".feather"): "arrow",
}
"""Kinds of shards by their suffixes; of a folder, the first of these that it contains is read."""
BESIDE_IMAGES = ((".tar.gz", ".tgz"), (".arrow", ".feather"))
"""Those that are not read if there are images in the folder or below it."""
EDGE_BYTES = 64 << 10
_MAX_FOOTER_BYTES = 64 << 20
_FRAME_BYTES = 8
"""Size of the end of a Parquet file: the length of its footer, and four magic bytes."""


def kind_of(name: str) -> ShardKind | None:
    """Return the kind of a shard by its name; None if it is none."""
    lower = name.lower()
    return next((kind for suffixes, kind in KINDS.items() if lower.endswith(suffixes)), None)


def edges_digest(file: BinaryIO, size: int) -> str:
    """Hash the size, the first and the last 64 KiB, which is cheap and detects a rewritten shard."""
    head = file.read(EDGE_BYTES)
    if size <= EDGE_BYTES:
        return digest(str(size).encode() + head + head)
    file.seek(size - EDGE_BYTES)
    return digest(str(size).encode() + head + file.read(EDGE_BYTES))


def digest(data: bytes) -> str:
    """Return a hash in the form that manifests use."""
    return hashlib.sha256(data).hexdigest()[:16]


def parquet_footer(file: BinaryIO, size: int) -> bytes:
    """Read the footer of a Parquet file to the end of the file, without parsing it; empty if there is none."""
    if size < _FRAME_BYTES:
        return b""
    file.seek(size - _FRAME_BYTES)
    length = int.from_bytes(file.read(4), "little") + _FRAME_BYTES
    if length > min(size, _MAX_FOOTER_BYTES):
        return b""
    file.seek(size - length)
    return file.read(length)
