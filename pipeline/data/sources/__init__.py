"""Sources of images: reads tars, Parquet files, folders and manifests as one stream of samples and failures."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.columns import DEFAULT_COLUMNS, Columns
from pipeline.data.sources.folder import list_folder, read_folder
from pipeline.data.sources.gzip_stream import is_gzip_name
from pipeline.data.sources.key_list import KeyMatch
from pipeline.data.sources.manifest import list_entries, read_manifest
from pipeline.data.sources.objects import is_url
from pipeline.data.sources.parquet import Rows, list_parquet, read_parquet, rows_in_process
from pipeline.data.sources.sample import Draw
from pipeline.data.sources.shards import (
    TABLE_KINDS,
    Chunk,
    Failure,
    Item,
    Sample,
    Shard,
    chunked,
    damage,
    is_image,
    taking,
)
from pipeline.data.sources.tar import IMAGE_SUFFIXES, image_bytes, list_tar, read_tar
from pipeline.data.sources.tar_names import MemberRules

__all__ = [
    "Chunk",
    "Draw",
    "Failure",
    "Item",
    "Reading",
    "Sample",
    "Shard",
    "chunked",
    "count_images",
    "image_bytes",
    "images_of",
    "list_items",
    "read_shard",
]

PARQUET_COLUMNS: Columns = DEFAULT_COLUMNS


@dataclass(frozen=True)
class Reading:
    """How to read samples; the same for every shard of a run."""

    annotations: Annotations = field(default_factory=Annotations)
    columns: Columns = field(default_factory=lambda: dict(PARQUET_COLUMNS))
    draw: Draw | None = None
    """The drawn images; None means all."""
    keys: KeyMatch | None = None
    """What the list of the run's images is like, if there is one; each shard has its own images in `only`."""
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    """Suffixes of the images in tars; empty for any member that is not an annotation."""
    members: MemberRules = field(default_factory=MemberRules)
    """The members of tars that are the image and the label, and those that are ignored."""


def read_shard(shard: Shard, reading: Reading, rows: Rows = rows_in_process) -> Iterator[Item]:
    """Stream the samples and failures of one shard in order, up to the number of images that the run takes.

    A file that cannot be opened, or fails while it is read, is one failure row; the items before it are kept. If an
    object store does not deliver a shard, that is an error and no failure row, see `pipeline.data.sources.objects`.

    Args:
        shard, reading: what to read, and how.
        rows: source of the rows of Parquet files; a process that must not crash passes `ParquetSandbox.rows`.

    Raises:
        StoreError: an object store cannot be reached, or the shard was replaced or deleted.
    """
    return taking(_chosen(_guarded(shard, _read(shard, reading, rows)), shard, reading.draw), shard.take)


def list_items(shard: Shard, reading: Reading, rows: Rows = rows_in_process) -> Iterator[Item]:
    """Stream the items that reading the whole shard would give, without their content.

    Only the headers of a tar and the keys of a Parquet file are read, and nothing of a folder or a manifest.
    """
    return _guarded(shard, _list(shard, reading, rows))


def _chosen(items: Iterable[Item], shard: Shard, draw: Draw | None) -> Iterator[Item]:
    """Keep the images that are drawn or listed, and rows that report damage to the shard."""
    if shard.only is not None:
        return (item for item in items if item.key in shard.only or not is_image(item))
    return (item for item in items if draw is None or not is_image(item) or draw.holds(shard.name, item.key))


def _distinct(items: Iterable[Item]) -> Iterator[Item]:
    """Change repeated keys, so that no two rows of a shard have the same key.

    The readers already handle repeated images. This is for hostile names that look like the key of a failure.
    """
    seen: set[str] = set()
    for item in items:
        key = item.key
        while key in seen:
            key += "'"
        seen.add(key)
        yield item if key == item.key else replace(item, key=key)


def images_of(items: Iterable[Item]) -> Iterator[Item]:
    """Leave out the rows that report damage to a shard."""
    return filter(is_image, items)


def count_images(shard: Shard, reading: Reading | None = None) -> int | None:
    """Count the images of a shard that belong to the run, including failed ones; only the headers of a tar are read.

    A shard that cannot be counted, because it is damaged, counts as empty. Returns None for a tar in an object store:
    its headers are so close together that all of it would have to be fetched; and for a compressed one, all of which
    would have to be unpacked.
    """
    images = shard.images
    if images is None and shard.kind == "tar" and (is_url(shard.location) or is_gzip_name(shard.location)):
        return None
    if images is None:
        try:
            images = sum(1 for _ in images_of(list_items(shard, reading or Reading()))) if shard.kind == "tar" else 0
        except OSError:
            images = 0
    return images if shard.take is None else min(images, shard.take)


def _guarded(shard: Shard, items: Iterator[Item]) -> Iterator[Item]:
    read = 0
    try:
        for item in items:
            yield item
            read += 1
    except OSError as error:
        yield damage(shard, read, "unreadable", f"after {read} items: {error.strerror or error}")


def _read(shard: Shard, reading: Reading, rows: Rows) -> Iterator[Item]:
    if shard.kind == "tar":
        return _distinct(read_tar(shard, reading.annotations, reading.suffixes, reading.members))
    if shard.kind in TABLE_KINDS:
        return _distinct(read_parquet(shard, reading.annotations, reading.columns, rows))
    if shard.kind == "manifest":
        return _distinct(read_manifest(shard, reading.annotations))
    return read_folder(shard, reading.annotations)


def _list(shard: Shard, reading: Reading, rows: Rows) -> Iterator[Item]:
    if shard.kind == "tar":
        return _distinct(list_tar(shard, reading.suffixes, reading.members))
    if shard.kind in TABLE_KINDS:
        return _distinct(list_parquet(shard, reading.columns, rows))
    if shard.kind == "manifest":
        return _distinct(list_entries(shard))
    return list_folder(shard)
