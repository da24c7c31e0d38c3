"""Shards and small files wherever they lie: a path is opened, a URL is read by ranged requests to its object store.

What the bytes of a shard say becomes rows, failures too. That bytes do not come at all (the store is down, an object
is gone, replaced or forbidden) says nothing of the data, and a failure row would say for ever that it does: it ends the
run with a StoreError, nothing is written of the chunk, and the same command goes on when the store is well again.
"""

import io
import os
from typing import TYPE_CHECKING, BinaryIO

from pipeline.errors import ConfigError, StoreError
from pipeline.sources.shards import Shard
from pipeline.store import Stat

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from pipeline.object_store import ObjectStore

PIECE_BYTES = 8 << 20
"""Most bytes of one request; so much of a shard is in memory, and so much is fetched again after an accident."""


def is_url(place: str) -> bool:
    """Whether a place is in an object store and not in a file system."""
    return "://" in place


def split_url(url: str) -> tuple[str, str]:
    """Split a URL into its bucket, with the scheme, and the name of the object."""
    scheme, _, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    return f"{scheme}://{bucket}", name


def bucket(url: str, where: str) -> "ObjectStore":
    """Open a bucket; raises ConfigError when the URL names none."""
    from pipeline.object_store import ObjectStore  # torch images without obstore still explain

    return ObjectStore(url, where=where)


class ObjectFile(io.RawIOBase):
    """One object, read by ranges, of which the latest is kept; put a small buffer around it.

    Every request is tried again as `ObjectStore` does, and names the ETag, so that no two objects are mixed.
    """

    def __init__(self, store: "ObjectStore", name: str, stat: Stat, piece_bytes: int) -> None:
        self._store, self._name, self._stat, self._piece_bytes = store, name, stat, piece_bytes
        self._at = self._start = 0
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move without a request."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._stat.size}[whence]
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Give what is kept from here on, or else the answer to one request; raises StoreError when none comes."""
        if self._at >= self._stat.size:
            return 0
        if not self._start <= self._at < self._start + len(self._piece):
            self._piece, self._start = memoryview(self._fetched()), self._at
        room = memoryview(buffer).cast("B")
        found = self._piece[self._at - self._start :][: len(room)]
        room[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _fetched(self) -> bytes:
        stop = min(self._at + self._piece_bytes, self._stat.size)
        try:
            return self._store.piece(self._name, self._at, stop, self._stat.etag)
        except FileNotFoundError as error:
            raise StoreError(
                f"{error} was there when the run began and is gone. Finished chunks are kept; put it back and run the "
                "same command again."
            ) from None


def open_shard(shard: Shard) -> BinaryIO:
    """Open a tar or a Parquet file for reading.

    Raises:
        OSError: the file cannot be opened.
    """
    if not is_url(shard.location):
        return open(shard.location, "rb")  # noqa: PTH123 - the caller closes it
    place, name = split_url(shard.location)
    stat = Stat(shard.size, shard.etag)
    return io.BufferedReader(ObjectFile(bucket(place, "data.shards"), name, stat, PIECE_BYTES))


def read_text(where: str, place: str) -> str:
    """Read a small UTF-8 file, with or without a byte order mark, at a path or a URL.

    Args:
        where: the setting that names it.
        place: its path or URL.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
        StoreError: its store cannot be reached.
    """
    try:
        return _read(where, place).decode("utf-8-sig")
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name that no file and no object can have
        raise ConfigError.one(where, f"cannot read '{place}': {error}") from None


def _read(where: str, place: str) -> bytes:
    if is_url(place):
        url, name = split_url(place)
        return bucket(url, where).read(name)
    with open(place, "rb") as file:  # noqa: PTH123 - as the system takes the name
        return file.read()
