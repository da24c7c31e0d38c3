"""Where images come from: webdataset tars, Parquet files and folders, as one stream of samples and failures."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.folder import list_folder, read_folder
from pipeline.data.sources.objects import is_url
from pipeline.data.sources.parquet import Rows, list_parquet, read_parquet, rows_here
from pipeline.data.sources.sample import Draw
from pipeline.data.sources.shards import Chunk, Failure, Item, Sample, Shard, chunked, damage, is_image, taking
from pipeline.data.sources.tar import image_bytes, list_tar, read_tar

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

PARQUET_COLUMNS = {"image": "image", "key": "key", "label": "label", "boxes": "boxes"}


@dataclass(frozen=True)
class Reading:
    """How samples are read, the same for every shard of a run."""

    annotations: Annotations = field(default_factory=Annotations)
    columns: dict[str, str] = field(default_factory=lambda: dict(PARQUET_COLUMNS))
    draw: Draw | None = None
    """Which images are drawn; None takes all."""


def read_shard(shard: Shard, reading: Reading, rows: Rows = rows_here) -> Iterator[Item]:
    """Stream the samples and failures of one shard, in their order, as many as the run takes.

    A file that cannot be opened, or breaks on the way, is one failure row; what was read before is kept. A shard in an
    object store whose bytes do not come is none, see `pipeline.data.sources.objects`.

    Args:
        shard, reading: what is read, and how.
        rows: where rows of Parquet files come from; a process that must not die gives those of `ParquetApart`.

    Raises:
        StoreError: an object store cannot be reached, or holds another shard than before.
    """
    return taking(_drawn(_guarded(shard, _read(shard, reading, rows)), shard, reading.draw), shard.take)


def list_items(shard: Shard, reading: Reading, rows: Rows = rows_here) -> Iterator[Item]:
    """Stream the items that reading all of a shard would give, without their content.

    Of a tar only headers are read, of a Parquet file only the keys, of a folder nothing.
    """
    return _guarded(shard, _list(shard, reading, rows))


def _drawn(items: Iterable[Item], shard: Shard, draw: Draw | None) -> Iterator[Item]:
    """Pass on what is drawn, and damage to the shard."""
    return (item for item in items if draw is None or not is_image(item) or draw.holds(shard.name, item.key))


def _distinct(items: Iterable[Item]) -> Iterator[Item]:
    """Mark keys that were there before, so that no two rows of a shard can have one key.

    The readers tell repeated keys apart already; this is for hostile names that look like the key of a failure.
    """
    seen: set[str] = set()
    for item in items:
        key = item.key
        while key in seen:
            key += "'"
        seen.add(key)
        yield item if key == item.key else replace(item, key=key)


def images_of(items: Iterable[Item]) -> Iterator[Item]:
    """Leave out the rows that stand for damage to a shard."""
    return filter(is_image, items)


def count_images(shard: Shard) -> int | None:
    """Count the images of a shard that belong to the run, failed ones included; of a tar only headers are read.

    A shard that does not tell, because it is damaged, counts as empty. None for a tar in an object store: its headers
    lie so close that all of it would have to be fetched.
    """
    images = shard.images
    if images is None and shard.kind == "tar" and is_url(shard.location):
        return None
    if images is None:
        try:
            images = sum(1 for _ in images_of(list_tar(shard))) if shard.kind == "tar" else 0
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
        return _distinct(read_tar(shard, reading.annotations))
    if shard.kind == "parquet":
        return _distinct(read_parquet(shard, reading.annotations, reading.columns, rows))
    return read_folder(shard, reading.annotations)


def _list(shard: Shard, reading: Reading, rows: Rows) -> Iterator[Item]:
    if shard.kind == "tar":
        return _distinct(list_tar(shard))
    if shard.kind == "parquet":
        return _distinct(list_parquet(shard, reading.columns, rows))
    return list_folder(shard)
