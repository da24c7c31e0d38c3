"""Streams the samples of webdataset tars, which may be compressed, and reports everything that is lost.

Members of one key are adjacent. The key is the path up to the first dot of the base name, unless that would make
several images one sample (see `tar_names`); the suffix (in lower case) is the type of a member.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.gzip_stream import is_gzip_name
from pipeline.data.sources.shards import Extent, Failure, Item, Shard, is_image
from pipeline.data.sources.tar_members import (
    Member,
    ReadMember,
    members_in,
    names_in,
    open_tar,
    with_data,
    without_data,
)
from pipeline.data.sources.tar_names import MemberRules, Naming, is_litter
from pipeline.settings.data import ANNOTATION_SUFFIXES, PARTS_SUFFIX

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
_HEAD_BYTES = 8 << 20
_ARCHIVES = ("tar", "tar.gz", "tgz", "zip")


def read_tar(
    shard: Shard,
    annotations: Annotations,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    rules: MemberRules = MemberRules(),  # noqa: B008 - immutable
) -> Iterator[Item]:
    """Stream the samples of one tar; everything that is lost is a failure.

    Args:
        shard, annotations: the tar, and labels and boxes from CSV files.
        suffixes: those of the image of a sample; empty for any member that is not an annotation.
        rules: the members that the run file names.
    """
    with open_tar(shard) as file:
        yield from _items_in(file, shard, annotations, with_data, _naming(shard, suffixes, rules))


def read_sample(
    data: bytes,
    key: str,
    shard: Shard,
    annotations: Annotations,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    rules: MemberRules = MemberRules(),  # noqa: B008 - immutable
) -> Iterator[Item]:
    """Yield the items in a range of a tar that holds one sample, whose key is known; their offsets are in the range."""
    naming = Naming(suffixes, rules, tuple, long_keys=frozenset((key,)))
    return _items_in(io.BytesIO(data), shard, annotations, with_data, naming)


def list_tar(
    shard: Shard,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    rules: MemberRules = MemberRules(),  # noqa: B008 - immutable
) -> Iterator[Item]:
    """Stream the items of one tar without their content; only the headers are read."""
    with open_tar(shard) as file:
        yield from _items_in(file, shard, Annotations(), without_data, _naming(shard, suffixes, rules))


def image_bytes(shards: Iterable[Shard]) -> float:
    """Estimate the bytes per image, with headers, labels and padding, from the first 8 MiB of each of these tars."""
    images = size = 0
    for shard in shards:
        with open_tar(shard) as file:
            head = file.read(_HEAD_BYTES)
        naming = Naming(IMAGE_SUFFIXES, MemberRules(), partial(names_in, io.BytesIO(head)))
        listed = _items_in(io.BytesIO(head), shard, Annotations(), without_data, naming)
        images, size = images + sum(map(is_image, listed)), size + len(head)
    return max(1.0, size / max(1, images))


def _naming(shard: Shard, suffixes: Sequence[str], rules: MemberRules) -> Naming:
    def all_names() -> Iterator[str]:
        with open_tar(shard) as file:
            yield from names_in(file)

    return Naming(suffixes, rules, all_names)


def _items_in(
    file: BinaryIO, shard: Shard, annotations: Annotations, read: ReadMember, naming: Naming
) -> Iterator[Item]:
    seen: set[str] = set()
    for group in _groups(members_in(file, shard, read), naming):
        if isinstance(group, Failure):
            yield group
            continue
        for item in _assemble(group, shard, seen, naming):
            yield item if isinstance(item, Failure) else _sample(*item, shard, annotations, naming)


def _groups(members: Iterable[Member | Failure], naming: Naming) -> Iterator[list[Member] | Failure]:
    """Group adjacent members of one key; damage between them does not split a group."""
    group: list[Member] = []
    for member in members:
        if isinstance(member, Failure):
            yield member
            continue
        if naming.rules.ignores(member.name) or is_litter(member.name):
            continue
        if group and naming.split(member.name)[0] != naming.split(group[0].name)[0]:
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _assemble(
    group: list[Member], shard: Shard, seen: set[str], naming: Naming
) -> Iterator[Failure | tuple[str, dict[str, Member]]]:
    """Yield the key of a group and its members by suffix, plus a failure for each repeated member."""
    key = naming.split(group[0].name)[0]
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
        suffix = naming.split(member.name)[1]
        if suffix in members:
            detail = f"'{member.name}' occurs twice; the first one was used"
            yield Failure(f"{key}@{member.offset}", shard.name, "read", "duplicate_key", detail)
        else:
            members[suffix] = member
    yield key, members


def _sample(key: str, members: dict[str, Member], shard: Shard, annotations: Annotations, naming: Naming) -> Item:
    for member in members.values():
        if member.data is None:
            return Failure(key, shard.name, "read", member.code, f"'{member.name}' cannot be read")
    data = {suffix: member.data for suffix, member in members.items() if member.data is not None}
    images = _image_suffixes(list(data), naming)
    if len(images) != 1:
        wrong = _wrong_number(images, list(data), naming.rules)
        return Failure(key, shard.name, "read", *wrong, extent=_extent(members, None, shard))
    label = naming.rules.label
    if label in data:  # a suffix of its own, such as `output.cls`, counts as the last part of it
        last = label.rpartition(".")[2]
        data |= {last if last in ANNOTATION_SUFFIXES else "cls": data[label]}
    image = data[images[0]]
    if images[0] == PARTS_SUFFIX:  # without another image it is one, and shows no parts
        del data[PARTS_SUFFIX]
    item = annotated(key, shard, image, data, annotations)
    return replace(item, extent=_extent(members, members[images[0]], shard))


def _extent(members: Mapping[str, Member], image: Member | None, shard: Shard) -> Extent:
    """Return where a sample and its image lie; nothing can be found by its offset in a compressed tar."""
    size = None if image is None else image.size
    if is_gzip_name(shard.location):
        return Extent(image_bytes=size)
    start = min(member.offset for member in members.values())
    end = max(member.data_offset + member.size for member in members.values())
    return Extent(None if image is None else image.data_offset, size, None, start, end - start)


def _wrong_number(images: list[str], suffixes: list[str], rules: MemberRules) -> tuple[str, str]:
    """Return the code and the detail of a sample without an image, or with several."""
    if images:
        return "ambiguous_image", f"members: {', '.join(images)}; data.members names the image, or what to ignore"
    archives = [suffix for suffix in suffixes if suffix.endswith(_ARCHIVES)]
    if archives:
        return "no_image", f"'.{archives[0]}' is an archive within the tar; unpack the outer one, and read the inner"
    expected = "" if rules.image is None else f"; data.members expects '.{rules.image}'"
    return "no_image", f"members: {', '.join(suffixes)}{expected}"


def _image_suffixes(suffixes: list[str], naming: Naming) -> list[str]:
    """Return the suffixes of images; a mask of parts is one only without any other."""
    if naming.rules.image is not None:
        return [suffix for suffix in suffixes if suffix == naming.rules.image]
    others = [suffix for suffix in suffixes if suffix != PARTS_SUFFIX or not naming.has_parts]
    return _known_among(others, naming.suffixes) or _known_among(suffixes, naming.suffixes)


def _known_among(suffixes: list[str], of_images: Sequence[str]) -> list[str]:
    """Return the suffixes that may be images; a plain one (`jpg`) wins over compound ones (`v1.jpg`)."""
    if not of_images:
        others = [suffix for suffix in suffixes if suffix.rpartition(".")[2] not in ANNOTATION_SUFFIXES]
        return [suffix for suffix in others if "." not in suffix] or others
    plain = [suffix for suffix in suffixes if suffix in of_images]
    return plain or [suffix for suffix in suffixes if suffix.endswith(tuple(f".{known}" for known in of_images))]
