"""Shards and small files wherever they lie: a path is opened, a URL is read by ranged requests to its object store.

What the bytes of a shard say becomes rows, failures too. That bytes do not come at all (the store is down, an object
is gone, replaced or forbidden) says nothing of the data, and a failure row would say for ever that it does: it ends the
run with a StoreError, nothing is written of the chunk, and the same command goes on when the store is well again.
"""

import io
from typing import TYPE_CHECKING, BinaryIO

from pipeline.data.sources.shards import Shard
from pipeline.errors import ConfigError, StoreError
from pipeline.storage.base import Stat
from pipeline.storage.object_file import ObjectFile

if TYPE_CHECKING:
    from pipeline.storage.object_store import ObjectStore

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
    from pipeline.storage.object_store import ObjectStore  # torch images without obstore still explain

    return ObjectStore(url, where=where)


class ShardFile(ObjectFile):
    """A shard in an object store; that it has gone since the run began is told as a StoreError."""

    def _fetched(self, start: int) -> bytes:
        try:
            return super()._fetched(start)
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
    return io.BufferedReader(ShardFile(bucket(place, "data.shards"), name, stat, PIECE_BYTES))


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
