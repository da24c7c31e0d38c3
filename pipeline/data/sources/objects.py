"""Opens shards and small files: a path is opened directly, a URL is read by ranged requests to its object store.

Bad content becomes failure rows. Missing bytes do not: if the store is down, or an object is gone, replaced or
forbidden, the data may be fine, but a failure row would be permanent. Instead, a StoreError ends the run, nothing of
the chunk is written, and the same command resumes the run once the store works again.
"""

import io
import os
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, TextIO
from urllib.parse import unquote

from pipeline.data.sources.shards import Shard
from pipeline.errors import ConfigError, StoreError, reason
from pipeline.storage.base import Stat
from pipeline.storage.object_file import ObjectFile

if TYPE_CHECKING:
    from pipeline.storage.object_store import ObjectStore

_WEB = ("https", "http")
PIECE_BYTES = 8 << 20
"""Maximum bytes of one request: this much of a shard is kept in memory, and is fetched again after a fault."""


def is_url(location: str) -> bool:
    """Return whether a location is in an object store and not in a file system."""
    return "://" in location


def split_url(url: str) -> tuple[str, str]:
    """Split a URL into its bucket, with the scheme, and the name of the object."""
    scheme, _, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    return f"{scheme}://{bucket}", unquote(name) if scheme in _WEB else name


def bucket(url: str, where: str) -> "ObjectStore":
    """Open a bucket; raises a ConfigError if the URL does not name one."""
    if url.partition("://")[0] in _WEB:
        from pipeline.storage.web_store import WebStore  # imported on demand, as below

        return WebStore(url, where=where)
    from pipeline.storage.object_store import ObjectStore  # imported on demand, because obstore is optional

    return ObjectStore(url, where=where)


class ShardFile(ObjectFile):
    """A shard in an object store; raises a StoreError if it was deleted after the run began."""

    def _request(self, start: int) -> bytes:
        try:
            return super()._request(start)
        except FileNotFoundError as error:
            raise StoreError(
                f"{error} existed when the run began and is gone. Finished chunks are kept. Restore it and run the "
                "same command again."
            ) from None


class RangeReader:
    """Reads ranges of shards, each with one request; every bucket is opened once, and threads may share a reader."""

    def __init__(self) -> None:
        self._stores: dict[str, ObjectStore] = {}
        self._lock = Lock()

    def read(self, shard: Shard, start: int, length: int) -> bytes:
        """Read the bytes from `start` on.

        Raises:
            OSError: the file is gone, or ends before.
            StoreError: its store cannot be reached, or the shard was replaced.
        """
        if is_url(shard.location):
            bucket_url, name = split_url(shard.location)
            return self._bucket(bucket_url).piece(name, start, start + length, shard.etag)
        with open(shard.location, "rb", buffering=0) as file:  # noqa: PTH123 - as `open_shard`
            data = os.pread(file.fileno(), length, start)
            while len(data) < length and (more := os.pread(file.fileno(), length - len(data), start + len(data))):
                data += more
        if len(data) < length:
            raise OSError(f"it ends after {start + len(data)} bytes")
        return data

    def _bucket(self, url: str) -> "ObjectStore":
        with self._lock:
            if url not in self._stores:
                self._stores[url] = bucket(url, "data.shards")
            return self._stores[url]


def open_shard(shard: Shard) -> BinaryIO:
    """Open a tar or a Parquet file for reading.

    Raises:
        OSError: the file cannot be opened.
    """
    if not is_url(shard.location):
        return open(shard.location, "rb")  # noqa: PTH123 - the caller closes it
    bucket_url, name = split_url(shard.location)
    stat = Stat(shard.size, shard.etag)
    return io.BufferedReader(ShardFile(bucket(bucket_url, "data.shards"), name, stat, PIECE_BYTES))


def read_text(where: str, location: str) -> str:
    """Read a small UTF-8 file, with or without a byte order mark, at a path or a URL.

    Args:
        where: the setting that names it.
        location: its path or URL.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
        StoreError: its store cannot be reached.
    """
    try:
        return _read(where, location).decode("utf-8-sig")
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or an invalid name
        raise ConfigError.one(where, f"cannot read '{location}': {reason(error)}") from None


def open_text(where: str, location: str) -> TextIO:
    """Open a UTF-8 file, with or without a byte order mark, at a path or a URL, to read it line by line.

    Raises:
        ConfigError: it cannot be opened.
        StoreError: its store cannot be reached.
    """
    try:
        file = io.BytesIO(_read(where, location)) if is_url(location) else open(location, "rb")  # noqa: PTH123, SIM115
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: an invalid name
        raise ConfigError.one(where, f"cannot read '{location}': {error}") from None
    return io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


def _read(where: str, location: str) -> bytes:
    if is_url(location):
        url, name = split_url(location)
        return bucket(url, where).read(name)
    with open(location, "rb") as file:  # noqa: PTH123 - Path would change some names
        return file.read()
