"""Finds the members of a tar, with the standard library, and reports everything that is lost.

Members are never extracted to disk. The reader finds the headers itself, because `tarfile` takes a damaged header, or
two zero blocks, for the end of the archive.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import BinaryIO, cast

from pipeline.data.sources.gzip_stream import GzipStream, is_gzip_name
from pipeline.data.sources.objects import open_shard
from pipeline.data.sources.shards import Failure, Shard, clean_text, damage
from pipeline.errors import StoreError

MAX_MEMBER_BYTES = 256 << 20
"""Maximum size of a member that is read into memory."""

MAX_HEADER_BYTES = 64 << 10
"""Maximum size of a header with its PAX, GNU long name or sparse map; larger ones are not valid headers."""

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """One member of the archive; if it could not be read, `data` is None and `code` is the reason.

    Attributes:
        name: its path.
        offset: where its header begins.
        data: its content.
        code: why there is none.
        data_offset, size: where its content lies.
    """

    name: str
    offset: int
    data: bytes | None
    code: str = ""
    data_offset: int = 0
    size: int = 0


ReadMember = Callable[[BinaryIO, tarfile.TarInfo], Member]


def open_tar(shard: Shard) -> AbstractContextManager[BinaryIO]:
    """Open a tar, which may be compressed, for reading.

    Raises:
        OSError: the file cannot be opened.
    """
    file = open_shard(shard)
    return cast("AbstractContextManager[BinaryIO]", GzipStream(file)) if is_gzip_name(shard.location) else file


def names_in(file: BinaryIO) -> Iterator[str]:
    """Yield the names of all members but folders, up to where the file cannot be read; only headers are read."""
    try:
        for info, _ in _headers(file, _reach(file)):
            if not info.isdir():
                yield clean_text(info.name)
    except OSError:
        return  # reading the members reports it


class _Archive(tarfile.TarFile):
    """The archive that `TarInfo.fromtarfile` needs as its argument; it does not search for members."""

    def next(self) -> None:
        """Do nothing, because `_headers` finds the members."""


class _HeaderFile:
    """The file while one header is read; rejects a header that is too long."""

    def __init__(self, file: BinaryIO) -> None:
        self.tell = file.tell
        self._read = file.read
        self._left = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Read the next bytes of the header, unless it is too long."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise tarfile.HeaderError("the header is too long")
        return self._read(size)


Reaches = Callable[[int], bool]
"""Tells whether a file has at least a number of bytes; one that is unpacked on the way does not know its length."""


def _reach(file: BinaryIO) -> Reaches:
    if isinstance(file, GzipStream):
        return file.reaches
    return file.seek(0, os.SEEK_END).__ge__


def members_in(file: BinaryIO, shard: Shard, read: ReadMember) -> Iterator[Member | Failure]:
    """Yield the members in order, and damage for gaps between them and for a missing end."""
    end = 0
    try:
        reaches = _reach(file)
        for info, following in _headers(file, reaches):
            yield from _gap_damage(file, shard, end, info.offset)
            end = following
            if not info.isdir():
                yield replace(read(file, info), data_offset=info.offset_data, size=info.size)
            if not reaches(end):
                yield damage(shard, info.offset, "truncated", f"the file ends inside {clean_text(info.name)}")
                return
        yield from _end_damage(file, shard, end, reaches)
    except OSError as error:
        yield damage(shard, end, "unreadable", f"{error.strerror or error}; the rest was not read")


def _headers(file: BinaryIO, reaches: Reaches) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield each header and the offset after its member; blocks that are not headers are skipped."""
    start = 0
    while reaches(start + _BLOCK):
        header = _header(file, start)
        if header is not None:
            yield header
        start = start + _BLOCK if header is None else header[1]


def _header(file: BinaryIO, start: int) -> tuple[tarfile.TarInfo, int] | None:
    """Read the header (with the PAX or GNU headers before it) that starts at an offset; None if there is none."""
    file.seek(start)
    archive = _Archive(fileobj=_HeaderFile(file), encoding="utf-8")  # type: ignore[arg-type]  # it only reads
    try:
        info = tarfile.TarInfo.fromtarfile(archive)
    except (OSError, StoreError):
        raise
    except Exception:  # tarfile's parsers raise many types of exceptions on hostile bytes
        return None
    info.offset = start  # tarfile does not count a global PAX header
    room = archive.offset - info.offset_data
    fits = 0 <= info.size <= room or (room >= 0 and not _is_plain(info))
    return (info, archive.offset) if fits else None


def _is_plain(info: tarfile.TarInfo) -> bool:
    return info.isreg() and not info.issparse()


def with_data(file: BinaryIO, info: tarfile.TarInfo) -> Member:
    """Read a member, if it is a plain file of at most `MAX_MEMBER_BYTES`."""
    name = clean_text(info.name)
    if not _is_plain(info):
        return Member(name, info.offset, None, "member_type")
    if info.size > MAX_MEMBER_BYTES:
        return Member(name, info.offset, None, "too_large")
    file.seek(info.offset_data)
    data = file.read(info.size)
    return Member(name, info.offset, data) if len(data) == info.size else Member(name, info.offset, None, "truncated")


def without_data(_: BinaryIO, info: tarfile.TarInfo) -> Member:
    """Return a member without its content."""
    return Member(clean_text(info.name), info.offset, b"")


def _gap_damage(file: BinaryIO, shard: Shard, start: int, stop: int) -> Iterator[Failure]:
    if start == stop:
        return
    if _all_zero(file, start, stop):
        yield damage(shard, start, "zero_blocks", f"{stop - start} zero bytes between members; reading continued")
    else:
        yield damage(shard, start, "damaged", f"{stop - start} bytes are not a tar member; reading continued")


def _end_damage(file: BinaryIO, shard: Shard, end: int, reaches: Reaches) -> Iterator[Failure]:
    if end and not reaches(end + 1):
        yield damage(shard, end, "truncated", "the end marker of the archive is missing")
    elif (length := _all_zero_to_end(file, end)) is not None:
        yield damage(shard, end, "damaged", f"the last {length - end} bytes are not tar members")


def _all_zero_to_end(file: BinaryIO, start: int) -> int | None:
    """Return the length of the file if it does not end in zeros from an offset on, else None."""
    file.seek(start)
    zero = True
    length = start
    while piece := file.read(1 << 20):
        zero = zero and piece.count(0) == len(piece)
        length += len(piece)
    return None if zero else length


def _all_zero(file: BinaryIO, start: int, stop: int) -> bool:
    file.seek(start)
    left = stop - start
    while left > 0:
        piece = file.read(min(left, 1 << 20))
        if not piece or piece.count(0) != len(piece):
            return not piece
        left -= len(piece)
    return True
