"""One object of a store as a file that is read by ranges."""

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
    """A store that reads parts of its objects."""

    def piece(self, name: str, start: int, stop: int, etag: str | None) -> bytes:
        """Read the bytes from `start` to before `stop` of an object with this ETag."""
        ...


class ObjectFile(io.RawIOBase):
    """One object, read by ranges, of which the latest is kept; put a small buffer around it.

    The store tries each request again, and the request names the ETag, so that no two objects are mixed.
    """

    def __init__(self, store: PieceReader, name: str, stat: Stat, piece_bytes: int) -> None:
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
            self._fetch(self._at)
        room = memoryview(buffer).cast("B")
        found = self._piece[self._at - self._start :][: len(room)]
        room[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _fetch(self, start: int) -> None:
        """Keep the piece that begins here."""
        self._piece, self._start = memoryview(self._fetched(start)), start

    def _fetched(self, start: int) -> bytes:
        stop = min(start + self._piece_bytes, self._stat.size)
        return self._store.piece(self._name, start, stop, self._stat.etag)


class ChecksummedFile(ObjectFile):
    """A Parquet object: whatever reaches its end, as readers ask first, is compared with the seal of its footer.

    Raises:
        pa.ArrowInvalid: on reading; the footer is not the one that was written.
    """

    def _fetch(self, start: int) -> None:
        """Keep a little more, so that a seal comes with the footer and costs no request."""
        super()._fetch(max(0, start - CHECKSUM_BYTES))
        if self._start + len(self._piece) == self._stat.size:
            check_end(bytes(self._piece), self._stat.size)


class Unlocked(ds.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """A dataset of files that Python reads, which is scanned without a deadlock.

    pyarrow begins a stream with Python's lock held, and may then wait for a thread that has to open a file and waits
    for that lock. Batches are asked for without it.
    """

    def scanner(self, **asked: Any) -> "_Scan":  # noqa: ANN401 - as pyarrow
        """Prepare a scan."""
        return _Scan(super().scanner(**asked))


@dataclass(frozen=True)
class _Scan:
    """A scan of which all is pyarrow's own but the stream."""

    scanner: ds.Scanner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        return getattr(self.scanner, name)

    def to_reader(self) -> pa.RecordBatchReader:
        """Give the stream of what was asked for."""
        return pa.RecordBatchReader.from_batches(self.scanner.projected_schema, self.scanner.to_batches())
