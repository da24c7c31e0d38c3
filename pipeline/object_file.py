"""One object of a store as a file that is read by ranges."""

import io
import os
from typing import TYPE_CHECKING

from pipeline.store import Stat

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from pipeline.object_store import ObjectStore


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
        """Give what is kept from here on, or else the answer to one request.

        Raises:
            StoreError: the store does not answer, or holds another object now.
            FileNotFoundError: the object is gone.
        """
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
        return self._store.piece(self._name, self._at, stop, self._stat.etag)
