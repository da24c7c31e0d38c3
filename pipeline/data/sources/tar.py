"""Streams webdataset tars with the standard library, and reports everything that is lost.

Members of one key are adjacent. The key is the path up to the first dot of the base name; the suffix (in lower case)
is the type of a member. Members are never extracted to disk. The reader finds the headers itself, because `tarfile`
takes a damaged header, or two zero blocks, for the end of the archive.
"""

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.data.sources.annotations import Annotations, annotated
from pipeline.data.sources.objects import open_shard
from pipeline.data.sources.row_finder import split_name
from pipeline.data.sources.shards import Failure, Item, Shard, clean_text, damage, is_image
from pipeline.errors import StoreError
from pipeline.settings.data import ANNOTATION_SUFFIXES

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
"""Maximum size of a member that is read into memory."""

MAX_HEADER_BYTES = 64 << 10
"""Maximum size of a header with its PAX, GNU long name or sparse map; larger ones are not valid headers."""

_BLOCK = tarfile.BLOCKSIZE
_HEAD_BYTES = 8 << 20


@dataclass(frozen=True)
class Member:
    """One member of the archive; if it could not be read, `data` is None and `code` is the reason."""

    name: str
    offset: int
    data: bytes | None
    code: str = ""


ReadMember = Callable[[BinaryIO, tarfile.TarInfo], Member]


def read_tar(shard: Shard, annotations: Annotations, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Iterator[Item]:
    """Stream the samples of one tar; everything that is lost is a failure.

    Args:
        shard, annotations: the tar, and labels and boxes from CSV files.
        suffixes: those of the image of a sample; empty for any member that is not an annotation.
    """
    with open_shard(shard) as file:
        yield from _items_in(file, shard, annotations, _member, suffixes)


def _items_in(
    file: BinaryIO, shard: Shard, annotations: Annotations, read: ReadMember, suffixes: Sequence[str]
) -> Iterator[Item]:
    seen: set[str] = set()
    for group in _groups(_members(file, shard, read)):
        if isinstance(group, Failure):
            yield group
            continue
        for item in _assemble(group, shard, seen):
            yield item if isinstance(item, Failure) else _sample(*item, shard, annotations, suffixes)


def list_tar(shard: Shard) -> Iterator[Item]:
    """Stream the items of one tar without their content; only the headers are read."""
    with open_shard(shard) as file:
        yield from _items_in(file, shard, Annotations(), _without_data, IMAGE_SUFFIXES)


def image_bytes(shards: Iterable[Shard]) -> float:
    """Estimate the bytes per image, with headers, labels and padding, from the first 8 MiB of each of these tars."""
    images = size = 0
    for shard in shards:
        with open_shard(shard) as file:
            head = file.read(_HEAD_BYTES)
        listed = _items_in(io.BytesIO(head), shard, Annotations(), _without_data, IMAGE_SUFFIXES)
        images, size = images + sum(map(is_image, listed)), size + len(head)
    return max(1.0, size / max(1, images))


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


def _members(file: BinaryIO, shard: Shard, read: ReadMember) -> Iterator[Member | Failure]:
    """Yield the members in order, and damage for gaps between them and for a missing end."""
    length = file.seek(0, os.SEEK_END)
    end = 0
    try:
        for info, following in _headers(file, length):
            yield from _gap_damage(file, shard, end, info.offset)
            end = following
            if not info.isdir():
                yield read(file, info)
            if end > length:
                yield damage(shard, info.offset, "truncated", f"the file ends inside {clean_text(info.name)}")
                return
        yield from _end_damage(file, shard, end, length)
    except OSError as error:
        yield damage(shard, end, "unreadable", f"{error.strerror or error}; the rest was not read")


def _headers(file: BinaryIO, length: int) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield each header and the offset after its member; blocks that are not headers are skipped."""
    start = 0
    while start + _BLOCK <= length:
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


def _member(file: BinaryIO, info: tarfile.TarInfo) -> Member:
    name = clean_text(info.name)
    if not _is_plain(info):
        return Member(name, info.offset, None, "member_type")
    if info.size > MAX_MEMBER_BYTES:
        return Member(name, info.offset, None, "too_large")
    file.seek(info.offset_data)
    data = file.read(info.size)
    return Member(name, info.offset, data) if len(data) == info.size else Member(name, info.offset, None, "truncated")


def _without_data(_: BinaryIO, info: tarfile.TarInfo) -> Member:
    return Member(clean_text(info.name), info.offset, b"")


def _gap_damage(file: BinaryIO, shard: Shard, start: int, stop: int) -> Iterator[Failure]:
    if start == stop:
        return
    if _all_zero(file, start, stop):
        yield damage(shard, start, "zero_blocks", f"{stop - start} zero bytes between members; reading continued")
    else:
        yield damage(shard, start, "damaged", f"{stop - start} bytes are not a tar member; reading continued")


def _end_damage(file: BinaryIO, shard: Shard, end: int, length: int) -> Iterator[Failure]:
    if end == length and length:
        yield damage(shard, end, "truncated", "the end marker of the archive is missing")
    elif not _all_zero(file, end, length):
        yield damage(shard, end, "damaged", f"the last {length - end} bytes are not tar members")


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
    """Group adjacent members of one key; damage between them does not split a group."""
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


def _assemble(group: list[Member], shard: Shard, seen: set[str]) -> Iterator[Failure | tuple[str, dict[str, Member]]]:
    """Yield the key of a group and its members by suffix, plus a failure for each repeated member."""
    key = split_name(group[0].name)[0]
    offset = group[0].offset
    if not key or key.endswith("/"):
        yield Failure(f"{key}@{offset}", shard.name, "read", "bad_name", f"'{group[0].name}' has no key")
        return
    if key in seen:
        detail = "the key occurs earlier in this shard; members of one key must be adjacent"
        yield Failure(f"{key}@{offset}", shard.name, "read", "duplicate_key", detail)
        return
    seen.add(key)
    members: dict[str, Member] = {}
    for member in group:
        suffix = split_name(member.name)[1]
        if suffix in members:
            detail = f"'{member.name}' occurs twice; the first one was used"
            yield Failure(f"{key}@{member.offset}", shard.name, "read", "duplicate_key", detail)
        else:
            members[suffix] = member
    yield key, members


def _sample(
    key: str, members: dict[str, Member], shard: Shard, annotations: Annotations, suffixes: Sequence[str]
) -> Item:
    for member in members.values():
        if member.data is None:
            return Failure(key, shard.name, "read", member.code, f"'{member.name}' cannot be read")
    data = {suffix: member.data for suffix, member in members.items() if member.data is not None}
    images = _image_suffixes(list(data), suffixes)
    if len(images) != 1:
        code, detail = ("ambiguous_image", ", ".join(images)) if images else ("no_image", ", ".join(data))
        return Failure(key, shard.name, "read", code, f"members: {detail}")
    return annotated(key, shard, data[images[0]], data, annotations)


def _image_suffixes(suffixes: list[str], of_images: Sequence[str]) -> list[str]:
    """Return the suffixes of images; a plain one (`jpg`) wins over compound ones (`v1.jpg`)."""
    if not of_images:
        others = [suffix for suffix in suffixes if suffix.rpartition(".")[2] not in ANNOTATION_SUFFIXES]
        return [suffix for suffix in others if "." not in suffix] or others
    plain = [suffix for suffix in suffixes if suffix in of_images]
    return plain or [suffix for suffix in suffixes if suffix.endswith(tuple(f".{known}" for known in of_images))]
