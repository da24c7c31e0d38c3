"""Selects the images of a run: `data.sample` draws a random sample, then `data.limit` takes its first images.

Each reader decides independently whether an image is drawn. The run stores only one threshold for this, however large
the dataset is.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.data.sources import Draw, Reading, Shard, images_of, list_items, read_shard
from pipeline.data.sources.parquet import Rows, rows_in_process
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.data.sources.shards import clean_text, is_image
from pipeline.settings.data import DataConfig


def select(data: DataConfig, shards: list[Shard], reading: Reading) -> tuple[list[Shard], Reading]:
    """Return the shards that contain images of the run, and how to read them."""
    with parquet_sandbox() as sandbox:
        if data.sample is not None:
            shards, reading = drawn(shards, reading, data.sample.n, data.sample.seed, sandbox.rows)
        return limited(shards, reading, data.limit, sandbox.rows), reading


def drawn(
    shards: list[Shard], reading: Reading, n: int, seed: int, rows: Rows = rows_in_process
) -> tuple[list[Shard], Reading]:
    """Draw n images from all shards, or all images if there are at most n.

    The keys of all images are listed, from the headers of tars and the keys of Parquet files. Shards without a drawn
    image are left out, unless they are damaged or empty, which must be reported.
    """
    draw = Draw(n, seed)
    held: Counter[int] = Counter()
    damaged: set[int] = set()

    def ranks() -> Iterator[tuple[str, int]]:
        for index, shard in enumerate(shards):
            for item in list_items(shard, reading, rows):
                if is_image(item):
                    held[index] += 1
                    yield draw.rank(shard.name, item.key), index
                else:
                    damaged.add(index)

    smallest = heapq.nsmallest(n, ranks())
    draw = replace(draw, of=held.total(), last=smallest[-1][0] if held.total() > n else None)
    counts = Counter(index for _, index in smallest)
    kept = [
        _keep_drawn_files(replace(shard, images=counts[index], held=held[index]), draw)
        for index, shard in enumerate(shards)
        if counts[index] or index in damaged or not held[index]
    ]
    return _renumber(kept), replace(reading, draw=draw)


def limited(shards: list[Shard], reading: Reading, limit: int | None, rows: Rows = rows_in_process) -> list[Shard]:
    """Take the first `limit` images in shard order: whole shards, then part of the next one."""
    if limit is None:
        return shards
    taken: list[Shard] = []
    left = limit
    for shard in shards:
        count = sum(1 for _ in itertools.islice(images_of(read_shard(shard, reading, rows)), left))
        taken.append(replace(shard, images=count, take=count if count == left else None))
        left -= count
        if not left:
            break
    return taken


def _keep_drawn_files(shard: Shard, draw: Draw) -> Shard:
    """Remove the files of a folder, or the images of a manifest, that are not drawn."""
    members = tuple(member for member in shard.members if draw.holds(shard.name, clean_text(member)))
    entries = tuple(entry for entry in shard.entries if draw.holds(shard.name, entry.key))
    return replace(shard, members=members, entries=entries)


def _renumber(shards: Sequence[Shard]) -> list[Shard]:
    return [replace(shard, ordinal=ordinal) for ordinal, shard in enumerate(shards)]
