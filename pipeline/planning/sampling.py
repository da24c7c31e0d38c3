"""Samples a few images of a run, spread over its shards, and reads and decodes them as the run does."""

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

from pipeline.data.decode import DecodedChunk, decode_chunk
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources import Chunk, Failure, Item, Reading, Sample, Shard, images_of, read_shard
from pipeline.data.sources.parquet import Rows
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.settings.preprocess import Preprocess

T = TypeVar("T")

_MAX_SHARDS = 8
"""Maximum shards to sample from: opening a tar on a slow disk takes time."""


@dataclass(frozen=True)
class ImageSample:
    """A sample of decoded images of a run.

    Attributes:
        chunk: the images as one chunk, including failures of reading and decoding.
        shards: number of shards they come from.
        seconds: time to read and decode them on one CPU.
    """

    chunk: DecodedChunk
    shards: int
    seconds: float

    @property
    def images(self) -> int:
        """Return the number of images that were read, including failed ones."""
        return len(self.chunk.samples) + len(self.chunk.failures)


def take_sample(
    shards: Sequence[Shard], reading: Reading, preprocess: Preprocess, limits: DecodeLimits, images: int
) -> ImageSample:
    """Read and decode images of evenly spaced shards: evenly spaced files of folders, the first images of others."""
    chosen = _evenly_spaced(list(shards), min(_MAX_SHARDS, images))
    with parquet_sandbox() as sandbox:
        for first in _read_first(chosen[0], 1, reading, sandbox.rows):
            _decode(chosen[0], [first], preprocess, limits)  # untimed warm-up
        began = time.perf_counter()
        items = _without_duplicates(
            item
            for shard, count in zip(chosen, _equal_shares(images, len(chosen)), strict=True)
            for item in _read_first(shard, count, reading, sandbox.rows)
        )
    chunk = _decode(chosen[0], items, preprocess, limits)
    return ImageSample(chunk, len(chosen), time.perf_counter() - began)


def _read_first(shard: Shard, count: int, reading: Reading, rows: Rows) -> Iterator[Item]:
    """Read the first `count` images of a shard, or evenly spaced ones of a folder."""
    return itertools.islice(images_of(read_shard(_thin_out(shard, count), reading, rows)), count)


def _decode(shard: Shard, items: list[Item], preprocess: Preprocess, limits: DecodeLimits) -> DecodedChunk:
    samples = tuple(item for item in items if isinstance(item, Sample))
    failures = tuple(item for item in items if isinstance(item, Failure))
    chunk = Chunk(shard, 0, last=True, samples=samples, failures=failures)
    with closing(DecodeSandbox(decoder=limits.decoder)) as sandbox:
        return decode_chunk(chunk, preprocess, limits, sandbox.frame)


def _equal_shares(images: int, shards: int) -> list[int]:
    """Divide a number of images among shards as equally as possible."""
    return [images * (i + 1) // shards - images * i // shards for i in range(shards)]


def _thin_out(shard: Shard, count: int) -> Shard:
    """Keep `count` evenly spaced files of a folder or images of a manifest; return other shards unchanged."""
    if shard.kind not in ("folder", "manifest"):
        return shard
    members = tuple(_evenly_spaced(list(shard.members[: shard.take]), count))
    entries = tuple(_evenly_spaced(list(shard.entries[: shard.take]), count))
    return replace(shard, members=members, entries=entries, images=len(members) + len(entries), take=None)


def _evenly_spaced(items: list[T], count: int) -> list[T]:
    """Return `count` evenly spaced items, or all items if there are fewer."""
    count = min(count, len(items))
    return [items[len(items) * i // count] for i in range(count)]


def _without_duplicates(items: Iterator[Item]) -> list[Item]:
    """Keep one image per key: shards may share keys, but the rows of one chunk must not."""
    return list({item.key: item for item in items}.values())
