"""What flows out of a dataset: shards, samples, failures, and chunks, the unit of everything."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from schemas.explanation import SHARD_STAGE

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1): pixel edges."""

Boxes = tuple[Box, ...]
"""Boxes of one image, in pixels of the stored file, before EXIF rotation."""

ShardKind = Literal["tar", "parquet", "folder"]


@dataclass(frozen=True)
class Shard:
    """One unit of reading: a tar, a Parquet file, or up to 1,024 files of a folder."""

    ordinal: int
    name: str
    kind: ShardKind
    location: str
    """A path, or a URL in an object store; never holds a secret."""
    size: int
    fingerprint: str
    images: int | None = None
    """How many images it holds, where that is known without reading it."""
    take: int | None = None
    """How many leading images belong to the run; None means all."""
    held: int | None = None
    """How many images it holds in all, where the run draws some of them."""
    members: tuple[str, ...] = ()
    """Folder shards: the files, relative to `location`."""
    etag: str | None = None
    """Of the object that was listed, where `location` is a URL; no other one is read in its place."""

    @property
    def bytes(self) -> int:
        """Bytes of the images that belong to the run; where some are drawn, about."""
        return self.size * (self.images or 0) // self.held if self.held else self.size


@dataclass(frozen=True)
class Sample:
    """One encoded image with what is known of it.

    Attributes:
        key: name of the image within its shard.
        shard: name of the shard.
        image: the encoded bytes.
        label: the class of the image; None where it is not known, and where there are several.
        boxes_xyxy: boxes of its objects.
        labels: every class of the image, where the data may name several; empty where it names one label or none.
        box_labels: the class of each box; None where the boxes are those of the label.
    """

    key: str
    shard: str
    image: bytes
    label: int | None
    boxes_xyxy: Boxes | None
    labels: tuple[int, ...] = ()
    box_labels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """A data problem: it becomes a row of the run and never an exception."""

    key: str
    shard: str
    stage: str
    code: str
    detail: str

    @property
    def is_image(self) -> bool:
        """Whether the row stands for an image (and not for damage to a shard)."""
        return self.stage != SHARD_STAGE


Item = Sample | Failure


def is_image(item: Item) -> bool:
    """Tell images, failed ones included, from damage to a shard."""
    return isinstance(item, Sample) or item.is_image


@dataclass(frozen=True)
class Chunk:
    """At most `chunk_images` consecutive items of one shard: one dataset row, one part file."""

    shard: Shard
    ordinal: int
    last: bool
    samples: tuple[Sample, ...] = ()
    failures: tuple[Failure, ...] = field(default=())


def damage(shard: Shard, offset: int, code: str, detail: str) -> Failure:
    """Make the row for damage to a shard; `offset` (bytes or rows) makes its key unique."""
    return Failure(f"{shard.name}@{offset}", shard.name, SHARD_STAGE, code, detail)


def reader_died(shard: Shard, offset: int) -> Failure:
    """Make the row for a Parquet file at which the process that read it died."""
    return damage(shard, offset, "reader_died", "the library that reads Parquet died here; the rest was not read")


def taking(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """Pass items on until `limit` images have gone by (damage rows do not count)."""
    left = limit
    for item in items:
        if left == 0:
            return
        yield item
        if left is not None and is_image(item):
            left -= 1


def chunked(items: Iterable[Item], shard: Shard, size: int) -> Iterator[Chunk]:
    """Cut the items of a shard into chunks; only the last one says `last`.

    A shard without any item still gives one chunk with one failure row, so that no shard passes in silence.
    """
    pending: list[Item] = []
    ordinal = 0
    for item in items:
        if len(pending) == size:
            yield _chunk(pending, shard, ordinal, last=False)
            pending, ordinal = [], ordinal + 1
        pending.append(item)
    if not pending:
        pending = [damage(shard, 0, "empty", "the shard holds no image")]
    yield _chunk(pending, shard, ordinal, last=True)


def _chunk(items: list[Item], shard: Shard, ordinal: int, *, last: bool) -> Chunk:
    samples = tuple(item for item in items if isinstance(item, Sample))
    failures = tuple(item for item in items if isinstance(item, Failure))
    return Chunk(shard, ordinal, last, samples, failures)


def clean_text(name: str) -> str:
    """Make any file or member name valid text; bytes that are not UTF-8 are written as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
