"""Reads a gzip file forwards, as the tar in it; a few bytes back are kept, and what swells without end is cut off."""

import gzip
import os
import zlib
from typing import BinaryIO

_WINDOW = 256 << 10
"""Bytes before the position that can be read again at no cost: more than a header of a tar."""
_PIECE = 1 << 20
_FREE_BYTES = 1 << 30
MOST_TIMES = 200
"""How often its compressed size a tar of images may have, beyond the first GiB; images hardly shrink at all."""
_MOST_RESTARTS = 8
"""Damage may need bytes from before the window, for which everything is unpacked again."""


def is_gzip_name(location: str) -> bool:
    """Return whether a path or URL has the name of a compressed tar."""
    return location.lower().endswith((".tar.gz", ".tgz"))


class GzipStream:
    """The unpacked content of a gzip file, for the reader of tars: it seeks and reads, mostly forwards.

    A file that was cut off ends where it was cut. Reading raises an OSError if the file is damaged, or swells.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._restarts = 0
        self._position = self._end = 0
        self._kept = b""
        self._restart()

    def __enter__(self) -> "GzipStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the start; nothing is unpacked yet."""
        if whence != os.SEEK_SET:
            raise ValueError("a compressed file has no known end")
        self._position = offset
        return offset

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        if self._position < self._end - len(self._kept):
            self._again()
        if not self.reaches(self._position):
            return b""
        pieces = [bytes(self._kept[len(self._kept) - (self._end - self._position) :][:size])]
        while (left := size - sum(map(len, pieces))) > 0 and (piece := self._unpack(min(left, _PIECE))):
            pieces.append(piece)
        data = b"".join(pieces)
        self._position += len(data)
        return data

    def reaches(self, offset: int) -> bool:
        """Return whether there are at least this many bytes; unpacks up to there."""
        while self._end < offset and self._unpack(min(offset - self._end, _PIECE)):
            pass
        return self._end >= offset

    def _unpack(self, size: int) -> bytes:
        try:
            data = self._gzip.read(size)
        except EOFError:
            data = b""
        except zlib.error as error:
            raise OSError(f"damaged gzip data: {error}") from None
        self._end += len(data)
        if self._end > _FREE_BYTES and self._end > MOST_TIMES * self._file.tell():
            raise OSError(f"it swells to more than {MOST_TIMES} times its size")
        self._kept = (self._kept + data)[-_WINDOW:]
        return data

    def _again(self) -> None:
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise OSError("it is damaged in too many places")
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._gzip = gzip.GzipFile(fileobj=self._file, mode="rb")
        self._kept, self._end = b"", 0
