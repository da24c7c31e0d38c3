"""Webdataset tars, streamed with the standard library and nothing lost in silence.

Members of one key stand side by side; the key is the path up to the first dot of the base name, the suffix
(in lower case) says what a member is. Members are never extracted to disk. The reader walks the archive
itself, because `tarfile` takes a damaged header, or two zero blocks, for the end of the archive.
"""

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.data.sources.annotations import Annotations, annotated, split_name
from pipeline.data.sources.objects import open_shard
from pipeline.data.sources.shards import Failure, Item, Shard, clean_text, damage, is_image
from pipeline.errors import StoreError

IMAGE_SUFFIXES = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "jp2",
    "ppm",
    "pgm",
    "pbm",
    "img",
)
MAX_MEMBER_BYTES = 256 << 20
"""Largest member that is read into memory."""

MAX_HEADER_BYTES = 64 << 10
"""Longest header (PAX, GNU long name or sparse map included) that is believed."""

_BLOCK = tarfile.BLOCKSIZE
_HEAD_BYTES = 8 << 20


@dataclass(frozen=True)
class Member:
    """One regular file of the archive; `data` is None when it could not be read."""

    name: str
    offset: int
    data: bytes | None
    trouble: str = ""


def read_tar(shard: Shard, annotations: Annotations) -> Iterator[Item]:
    """Stream the samples of one tar; everything lost on the way is a failure."""
    return _items(shard, annotations, _member)


def _items(
    shard: Shard, annotations: Annotations, read: Callable[[BinaryIO, tarfile.TarInfo], "Member"]
) -> Iterator[Item]:
    with open_shard(shard) as file:
        yield from _items_in(file, shard, annotations, read)


def _items_in(
    file: BinaryIO, shard: Shard, annotations: Annotations, read: Callable[[BinaryIO, tarfile.TarInfo], "Member"]
) -> Iterator[Item]:
    seen: set[str] = set()
    for group in _groups(_members(file, shard, read)):
        if isinstance(group, Failure):
            yield group
        else:
            yield from _assemble(group, shard, annotations, seen)


def list_tar(shard: Shard) -> Iterator[Item]:
    """Stream the items of one tar, without their content, from its headers alone."""
    return _items(shard, Annotations(), _unread)


def image_bytes(shards: Iterable[Shard]) -> float:
    """Tell what an image takes of a tar, headers, labels and padding included, by the first 8 MiB of each of some."""
    images = size = 0
    for shard in shards:
        with open_shard(shard) as file:
            head = file.read(_HEAD_BYTES)
        listed = _items_in(io.BytesIO(head), shard, Annotations(), _unread)
        images, size = images + sum(map(is_image, listed)), size + len(head)
    return max(1.0, size / max(1, images))


class _Archive(tarfile.TarFile):
    """What `TarInfo.fromtarfile` reads from; it looks for no member of its own accord."""

    def next(self) -> None:
        """Leave the walk to `_headers`."""


class _HeaderFile:
    """The file while one header is read: a header that asks for too much is none."""

    def __init__(self, file: BinaryIO) -> None:
        self.tell = file.tell
        self._read = file.read
        self._left = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """Read on, as long as the header stays within its bounds."""
        self._left -= size
        if size < 0 or self._left < 0:
            raise tarfile.HeaderError("the header is too long")
        return self._read(size)


def _members(
    file: BinaryIO, shard: Shard, read: Callable[[BinaryIO, tarfile.TarInfo], Member]
) -> Iterator[Member | Failure]:
    """Walk the members in order; every gap between them, and a missing end, is damage."""
    length = file.seek(0, os.SEEK_END)
    end = 0
    try:
        for info, following in _headers(file, length):
            yield from _gap(file, shard, end, info.offset)
            end = following
            if not info.isdir():
                yield read(file, info)
            if end > length:
                yield damage(shard, info.offset, "truncated", f"the file ends inside {clean_text(info.name)}")
                return
        yield from _ending(file, shard, end, length)
    except OSError as error:
        yield damage(shard, end, "unreadable", f"{error.strerror or error}; the rest was not read")


def _headers(file: BinaryIO, length: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Give each header and the offset behind its member; blocks that are no header are stepped over."""
    start = 0
    while start + _BLOCK <= length:
        header = _header(file, start)
        if header is not None:
            yield header
        start = start + _BLOCK if header is None else header[1]


def _header(file: BinaryIO, start: int) -> tuple[tarfile.TarInfo, int] | None:
    """Read the header (with the PAX or GNU headers before it) that starts at an offset; None where there is none."""
    file.seek(start)
    archive = _Archive(fileobj=_HeaderFile(file), encoding="utf-8")  # type: ignore[arg-type]  # it only reads
    try:
        info = tarfile.TarInfo.fromtarfile(archive)
    except (OSError, StoreError):
        raise
    except Exception:  # hostile bytes: tarfile's parsers raise many types
        return None
    info.offset = start  # tarfile leaves a global PAX header out
    room = archive.offset - info.offset_data
    fits = 0 <= info.size <= room or (room >= 0 and not _is_plain(info))
    return (info, archive.offset) if fits else None


def _is_plain(info: tarfile.TarInfo) -> bool:
    return info.isreg() and not info.issparse()


def _member(file: BinaryIO, info: tarfile.TarInfo) -> Member:
    name = clean_text(info.name)
    if not _is_plain(info):
        return Member(name, info.offset, None, "member_type")
    if info.size > MAX_MEMBER_BYTES:
        return Member(name, info.offset, None, "too_large")
    file.seek(info.offset_data)
    data = file.read(info.size)
    return Member(name, info.offset, data) if len(data) == info.size else Member(name, info.offset, None, "truncated")


def _unread(_: BinaryIO, info: tarfile.TarInfo) -> Member:
    return Member(clean_text(info.name), info.offset, b"")


def _gap(file: BinaryIO, shard: Shard, start: int, stop: int) -> Iterator[Failure]:
    if start == stop:
        return
    if _all_zero(file, start, stop):
        yield damage(shard, start, "zero_blocks", f"{stop - start} zero bytes between members; read on behind them")
    else:
        yield damage(shard, start, "damaged", f"{stop - start} bytes are no tar member; read on behind them")


def _ending(file: BinaryIO, shard: Shard, end: int, length: int) -> Iterator[Failure]:
    if end == length and length:
        yield damage(shard, end, "truncated", "the archive ends without its end marker")
    elif not _all_zero(file, end, length):
        yield damage(shard, end, "damaged", f"the last {length - end} bytes are no tar members")


def _all_zero(file: BinaryIO, start: int, stop: int) -> bool:
    file.seek(start)
    left = stop - start
    while left > 0:
        piece = file.read(min(left, 1 << 20))
        if not piece or piece.count(0) != len(piece):
            return not piece
        left -= len(piece)
    return True


def _groups(members: Iterable[Member | Failure]) -> Iterator[list[Member] | Failure]:
    """Put adjacent members of one key together; damage between them does not part them."""
    group: list[Member] = []
    for member in members:
        if isinstance(member, Failure):
            yield member
            continue
        if group and split_name(member.name)[0] != split_name(group[0].name)[0]:
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _assemble(group: list[Member], shard: Shard, annotations: Annotations, seen: set[str]) -> Iterator[Item]:
    """Turn the members of one key into one sample or its failure, and repeats into failures of their own."""
    key = split_name(group[0].name)[0]
    offset = group[0].offset
    if not key or key.endswith("/"):
        yield Failure(f"{key}@{offset}", shard.name, "read", "bad_name", f"'{group[0].name}' has no key")
        return
    if key in seen:
        detail = "the key stood earlier in this shard; members of one key must be adjacent"
        yield Failure(f"{key}@{offset}", shard.name, "read", "duplicate_key", detail)
        return
    seen.add(key)
    members: dict[str, Member] = {}
    for member in group:
        suffix = split_name(member.name)[1]
        if suffix in members:
            detail = f"'{member.name}' stands twice; the first was used"
            yield Failure(f"{key}@{member.offset}", shard.name, "read", "duplicate_key", detail)
        else:
            members[suffix] = member
    yield _sample(key, members, shard, annotations)


def _sample(key: str, members: dict[str, Member], shard: Shard, annotations: Annotations) -> Item:
    for member in members.values():
        if member.data is None:
            return Failure(key, shard.name, "read", member.trouble, f"'{member.name}' cannot be read")
    data = {suffix: member.data for suffix, member in members.items() if member.data is not None}
    images = _image_suffixes(list(data))
    if len(images) != 1:
        code, detail = ("ambiguous_image", ", ".join(images)) if images else ("no_image", ", ".join(data))
        return Failure(key, shard.name, "read", code, f"members: {detail}")
    return annotated(key, shard, data[images[0]], data, annotations)


def _image_suffixes(suffixes: list[str]) -> list[str]:
    """Choose the image of a sample: plain `jpg` before compound `v1.jpg`."""
    plain = [suffix for suffix in suffixes if suffix in IMAGE_SUFFIXES]
    return plain or [suffix for suffix in suffixes if suffix.rpartition(".")[2] in IMAGE_SUFFIXES]
