"""Which images of the shards belong to a run: `data.sample` draws some of all, `data.limit` takes the first of those.

Every reader decides by itself whether an image is drawn; the run keeps one number for that, whatever the dataset holds.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from pipeline.data.sources import Draw, Reading, Shard, images_of, list_items, read_shard
from pipeline.data.sources.parquet import Rows, rows_here
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.data.sources.shards import clean_text, is_image
from pipeline.settings.data import DataConfig


def select(data: DataConfig, shards: list[Shard], reading: Reading) -> tuple[list[Shard], Reading]:
    """Give the shards that hold images of the run, and how these are read."""
    with closing(ParquetSandbox()) as sandbox:
        if data.sample is not None:
            shards, reading = drawn(shards, reading, data.sample.n, data.sample.seed, sandbox.rows)
        return limited(shards, reading, data.limit, sandbox.rows), reading


def drawn(
    shards: list[Shard], reading: Reading, n: int, seed: int, rows: Rows = rows_here
) -> tuple[list[Shard], Reading]:
    """Draw n images of all shards; all of them where there are no more.

    The keys of all images are listed: of tars the headers are read, of Parquet files the keys. Shards of which nothing
    is drawn are left out, unless they are damaged or empty, which must be told.
    """
    draw = Draw(n, seed)
    held: Counter[int] = Counter()
    damaged: set[int] = set()

    def ranks() -> Iterator[tuple[str, int]]:
        for place, shard in enumerate(shards):
            for item in list_items(shard, reading, rows):
                if is_image(item):
                    held[place] += 1
                    yield draw.rank(shard.name, item.key), place
                else:
                    damaged.add(place)

    smallest = heapq.nsmallest(n, ranks())
    draw = replace(draw, of=held.total(), last=smallest[-1][0] if held.total() > n else None)
    counts = Counter(place for _, place in smallest)
    kept = [
        _thinned(replace(shard, images=counts[place], held=held[place]), draw)
        for place, shard in enumerate(shards)
        if counts[place] or place in damaged or not held[place]
    ]
    return _numbered(kept), replace(reading, draw=draw)


def limited(shards: list[Shard], reading: Reading, limit: int | None, rows: Rows = rows_here) -> list[Shard]:
    """Take the first `limit` images in shard order: whole shards, then a part of the next one."""
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


def _thinned(shard: Shard, draw: Draw) -> Shard:
    """Leave the files of a folder out that are not drawn."""
    members = tuple(member for member in shard.members if draw.holds(shard.name, clean_text(member)))
    return replace(shard, members=members)


def _numbered(shards: Sequence[Shard]) -> list[Shard]:
    return [replace(shard, ordinal=ordinal) for ordinal, shard in enumerate(shards)]
