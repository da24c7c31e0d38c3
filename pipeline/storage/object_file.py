"""An object of a store as a file-like object, read with range requests."""

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.storage.base import Stat
from pipeline.storage.checksums import CHECKSUM_BYTES, check_end

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class PieceReader(Protocol):
    """A store that supports range requests."""

    def piece(self, name: str, start: int, stop: int, etag: str | None) -> bytes:
        """Read the bytes `start` to `stop` (exclusive) of the object with this ETag."""
        ...


class ObjectFile(io.RawIOBase):
    """An object read with range requests; caches the latest range only, so wrap it in a small buffer.

    The store retries each request. Requests pin the ETag, so the bytes of two versions are never mixed.
    """

    def __init__(self, store: PieceReader, name: str, stat: Stat, piece_bytes: int) -> None:
        self._store, self._name, self._stat, self._piece_bytes = store, name, stat, piece_bytes
        self._position = self._start = 0
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True; seeking costs no request."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte to read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, without a request, and return it."""
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._stat.size}[whence]
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer from the cached range, after fetching a new range if needed; may fill only a part of it.

        Raises:
            StoreError: the store does not respond, or the object was replaced.
            FileNotFoundError: the object was deleted.
        """
        if self._position >= self._stat.size:
            return 0
        if not self._start <= self._position < self._start + len(self._piece):
            self._fetch(self._position)
        target = memoryview(buffer).cast("B")
        piece = self._piece[self._position - self._start :][: len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _fetch(self, start: int) -> None:
        """Fetch and cache the range that begins at `start`."""
        self._piece, self._start = memoryview(self._request(start)), start

    def _request(self, start: int) -> bytes:
        stop = min(start + self._piece_bytes, self._stat.size)
        return self._store.piece(self._name, start, stop, self._stat.etag)


class ChecksummedFile(ObjectFile):
    """A Parquet object whose footer checksum is verified by every read that reaches the end, as a reader's first does.

    Raises:
        pa.ArrowInvalid: on reading, if the footer was changed after writing.
    """

    def _fetch(self, start: int) -> None:
        """Fetch a few bytes more, so that the checksum before the footer costs no extra request."""
        super()._fetch(max(0, start - CHECKSUM_BYTES))
        if self._start + len(self._piece) == self._stat.size:
            check_end(bytes(self._piece), self._stat.size)


class DeadlockFreeDataset(ds.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """A dataset over Python file objects that avoids a deadlock when it is scanned as a stream.

    pyarrow's `to_reader` holds Python's GIL while it may wait for a thread that needs the GIL to open a file.
    `to_batches` releases the GIL, so streams are made from it.
    """

    def scanner(self, **options: Any) -> "_Scan":  # noqa: ANN401 - as pyarrow
        """Create a scanner."""
        return _Scan(super().scanner(**options))


@dataclass(frozen=True)
class _Scan:
    """Wraps a pyarrow scanner and replaces its stream."""

    scanner: ds.Scanner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the scanner
        return getattr(self.scanner, name)

    def to_reader(self) -> pa.RecordBatchReader:
        """Return the scanned batches as a stream."""
        return pa.RecordBatchReader.from_batches(self.scanner.projected_schema, self.scanner.to_batches())
