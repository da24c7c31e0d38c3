"""Data types for reading a dataset: shards, samples, failures, and chunks, the unit of work."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from pipeline.data.sources.columns import TableFacts
from schemas.explanation import SHARD_STAGE

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1): pixel edges."""

Boxes = tuple[Box, ...]
"""Boxes of one image, in pixels of the stored file, before EXIF rotation."""

Metadata = tuple[tuple[str, str], ...]
"""Names and values of further columns of an image, in the order of `data.metadata`."""

ShardKind = Literal["tar", "parquet", "arrow", "folder", "manifest"]
TABLE_KINDS = ("parquet", "arrow")
"""Kinds that the Arrow library reads, which is C++."""
KNOWN_KINDS = ("folder", "manifest")
"""Kinds whose images are all known, with what is said of them, before any of them is read."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a row of a manifest, or a file of annotations, says of one image; None where it says nothing.

    Attributes:
        label: its class as written.
        labels: its classes as written, if it may have several.
        boxes_xyxy: boxes of its objects.
        box_labels: the class of each box as written; None if the boxes belong to the label.
        relative: the boxes are in shares of the width and height of the picture, and not in pixels.
        metadata: further columns.
    """

    label: str | None = None
    labels: tuple[str, ...] | None = None
    boxes_xyxy: Boxes | None = None
    box_labels: tuple[str, ...] | None = None
    relative: bool = False
    metadata: Metadata = ()


def joined(row: Described | None, file: Described) -> Described:
    """Return what a row says of an image, with the boxes of a file, and with its labels if the row has none."""
    if row is None or file == Described():
        return file if row is None else row
    if row.label is None and row.labels is None:
        row = replace(row, label=file.label, labels=file.labels)
    if file.boxes_xyxy is None:
        return row
    return replace(row, boxes_xyxy=file.boxes_xyxy, box_labels=file.box_labels, relative=file.relative)


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a manifest.

    Attributes:
        key: its name in the run.
        location: an absolute path, or a URL in an object store.
        size: its bytes when it was listed; None if the file was missing.
        etag: its ETag when it was listed, if it is in an object store.
        said: what the manifest says of it.
    """

    key: str
    location: str
    size: int | None
    etag: str | None = None
    said: Described = Described()


@dataclass(frozen=True)
class Shard:
    """A part of the dataset that is read as one stream.

    It is a tar, a Parquet file, up to 1,024 files of a folder, or up to 1,024 images of a manifest.
    """

    ordinal: int
    name: str
    kind: ShardKind
    location: str
    """A path, or a URL in an object store; never contains a secret."""
    size: int
    fingerprint: str
    images: int | None = None
    """Number of images, if it is known without reading the shard."""
    take: int | None = None
    """Number of leading images that belong to the run; None means all."""
    held: int | None = None
    """Total number of images in the shard, if the run takes only some of them."""
    members: tuple[str, ...] = ()
    """The files of a folder shard, relative to `location`."""
    table: TableFacts | None = None
    """Columns and class names of a table, if they could be read."""
    etag: str | None = None
    """ETag of the listed object, if `location` is a URL; an object with another ETag is not read."""
    entries: tuple[Entry, ...] = ()
    """The images of a manifest, which lies at `location`."""
    only: frozenset[str] | None = None
    """The keys of the images that belong to the run, if it lists them; None means all."""

    @property
    def bytes(self) -> int:
        """Return the bytes of the images that belong to the run; an estimate if only some are drawn."""
        return self.size * (self.images or 0) // self.held if self.held else self.size


@dataclass(frozen=True, slots=True)
class PartValues:
    """The value of each part of an image for one class of one model, such as its Shapley value.

    Attributes:
        values: one for each part, in the order of their indices in the mask, which start at 1.
        target: the class.
        weights: sha256 of the model's weights; empty if it is not stated.
    """

    values: tuple[float, ...]
    target: int
    weights: str = ""


class Extent(NamedTuple):
    """Where an image lies, so that it can be read again without its shard; the fields are columns of the rows.

    It follows from the shard alone, never from how it is divided into chunks and tasks.

    Attributes:
        image_offset: first byte of the encoded image in its file; None in compressed tars and in tables.
        image_bytes: bytes of the encoded image.
        image_row: row of the table that holds it; None elsewhere.
        sample_offset, sample_bytes: where the members of its sample lie in the tar, from the first header on.
    """

    image_offset: int | None = None
    image_bytes: int | None = None
    image_row: int | None = None
    sample_offset: int | None = None
    sample_bytes: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Extent":
        """Return what a row of a run says; columns that it does not have say nothing."""
        return cls(*(row.get(name) for name in cls._fields))


NOWHERE = Extent()
"""The extent of what is no image, or of an image whose bytes were not found."""


@dataclass(frozen=True)
class Sample:
    """One encoded image with its labels, boxes and parts.

    Attributes:
        key: name of the image within its shard.
        shard: name of the shard.
        image: the encoded bytes.
        label: the class of the image; None if it is not known, or if there are several.
        boxes_xyxy: boxes of its objects.
        labels: the classes in the image's list of labels; empty if the data has no such list.
        box_labels: the class of each box; None if the boxes belong to the label.
        boxes_relative: the boxes are in shares of the width and height of the picture, and not in pixels.
        metadata: further columns of the image.
        parts: the values of its parts.
        part_mask: the encoded mask of its parts; None if there are none, or if the run does not read them.
        extent: where the image lies.
    """

    key: str
    shard: str
    image: bytes
    label: int | None
    boxes_xyxy: Boxes | None
    labels: tuple[int, ...] = ()
    box_labels: tuple[int, ...] | None = None
    boxes_relative: bool = False
    metadata: Metadata = ()
    parts: PartValues | None = None
    part_mask: bytes | None = None
    extent: Extent = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Failure:
    """A data problem, such as an undecodable image; it becomes a row of the run and never an exception."""

    key: str
    shard: str
    stage: str
    code: str
    detail: str
    metadata: Metadata = ()
    extent: Extent = field(default=NOWHERE, compare=False)

    @property
    def is_image(self) -> bool:
        """Return whether the row stands for an image (and not for damage to a shard)."""
        return self.stage != SHARD_STAGE


Item = Sample | Failure


def is_image(item: Item) -> bool:
    """Return whether an item is an image, possibly a failed one, and not damage to a shard."""
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
    """Return the failure that reports damage to a shard; `offset` (bytes or rows) makes its key unique."""
    return Failure(f"{shard.name}@{offset}", shard.name, SHARD_STAGE, code, detail)


def reader_died(shard: Shard, offset: int) -> Failure:
    """Return the failure for a Parquet file that crashed the process reading it."""
    return damage(shard, offset, "reader_died", "the Parquet library crashed here; the rest was not read")


def taking(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """Yield the items up to the `limit`-th image; damage rows do not count."""
    left = limit
    for item in items:
        if left == 0:
            return
        yield item
        if left is not None and is_image(item):
            left -= 1


def chunked(items: Iterable[Item], shard: Shard, size: int) -> Iterator[Chunk]:
    """Split the items of a shard into chunks; `last` marks the last one.

    A shard without items gives one chunk with one failure row, so that no shard is skipped silently.
    """
    pending: list[Item] = []
    ordinal = 0
    for item in items:
        if len(pending) == size:
            yield _chunk(pending, shard, ordinal, last=False)
            pending, ordinal = [], ordinal + 1
        pending.append(item)
    if not pending:
        pending = [damage(shard, 0, "empty", "the shard contains no image")]
    yield _chunk(pending, shard, ordinal, last=True)


def _chunk(items: list[Item], shard: Shard, ordinal: int, *, last: bool) -> Chunk:
    samples = tuple(item for item in items if isinstance(item, Sample))
    failures = tuple(item for item in items if isinstance(item, Failure))
    return Chunk(shard, ordinal, last, samples, failures)


def clean_text(name: str) -> str:
    """Return a file or member name as valid text; bytes that are not UTF-8 become escapes."""
    if name.isascii():
        return name  # the same object: a folder may hold a million names
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
