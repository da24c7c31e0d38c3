"""A few real images of a run, read and decoded by the run's own steps, spread over its shards."""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

from pipeline.data.decode import DecodedChunk, DecodeLimits, decode_chunk
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.sources import Chunk, Failure, Item, Reading, Sample, Shard, images_of, read_shard
from pipeline.data.sources.parquet import Rows
from pipeline.data.sources.parquet_sandbox import ParquetSandbox
from pipeline.settings.preprocess import Preprocess

Thing = TypeVar("Thing")

_MOST_SHARDS = 8
"""Shards that a sample is taken from: each is opened, and tars may lie on a slow disk."""


@dataclass(frozen=True)
class ImageSample:
    """Decoded images of a run.

    Attributes:
        chunk: the images, as if they were one chunk; failures of reading and decoding included.
        shards: how many shards they come from.
        seconds: to read and decode them, on one CPU.
    """

    chunk: DecodedChunk
    shards: int
    seconds: float

    @property
    def images(self) -> int:
        """Images that were read, failed ones included."""
        return len(self.chunk.samples) + len(self.chunk.failures)


def take_sample(
    shards: Sequence[Shard], reading: Reading, preprocess: Preprocess, limits: DecodeLimits, images: int
) -> ImageSample:
    """Read and decode images of evenly spaced shards: of a folder evenly spaced files, of others the first ones."""
    chosen = _spaced(list(shards), min(_MOST_SHARDS, images))
    with closing(ParquetSandbox()) as apart:
        for first in _first(chosen[0], 1, reading, apart.rows):
            _decoded(chosen[0], [first], preprocess, limits)  # untimed: whatever is done once only
        began = time.perf_counter()
        items = _distinct(
            item
            for shard, count in zip(chosen, _shares(images, len(chosen)), strict=True)
            for item in _first(shard, count, reading, apart.rows)
        )
    chunk = _decoded(chosen[0], items, preprocess, limits)
    return ImageSample(chunk, len(chosen), time.perf_counter() - began)


def _first(shard: Shard, count: int, reading: Reading, rows: Rows) -> Iterator[Item]:
    """Read so many images of a shard."""
    return itertools.islice(images_of(read_shard(_thinned(shard, count), reading, rows)), count)


def _decoded(shard: Shard, items: list[Item], preprocess: Preprocess, limits: DecodeLimits) -> DecodedChunk:
    samples = tuple(item for item in items if isinstance(item, Sample))
    failures = tuple(item for item in items if isinstance(item, Failure))
    chunk = Chunk(shard, 0, last=True, samples=samples, failures=failures)
    with closing(DecodeSandbox()) as apart:
        return decode_chunk(chunk, preprocess, limits, apart.frame)


def _shares(images: int, shards: int) -> list[int]:
    """Cut a number of images into as equal shares as can be."""
    return [images * (i + 1) // shards - images * i // shards for i in range(shards)]


def _thinned(shard: Shard, count: int) -> Shard:
    """Keep evenly spaced files of a folder; another shard is read from its beginning."""
    if shard.kind != "folder":
        return shard
    members = _spaced(list(shard.members[: shard.take]), count)
    return replace(shard, members=tuple(members), images=len(members), take=None)


def _spaced(things: list[Thing], count: int) -> list[Thing]:
    """Keep `count` things, evenly spaced; all where there are no more."""
    count = min(count, len(things))
    return [things[len(things) * i // count] for i in range(count)]


def _distinct(items: Iterator[Item]) -> list[Item]:
    """Drop images whose key another shard has too: in one chunk no two rows can share a key."""
    return list({item.key: item for item in items}.values())
