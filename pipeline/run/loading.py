"""Work units: the decoded chunks that go from reading to explaining.

A work unit is one chunk, or a few. Every unit costs the driver the same few milliseconds, whatever its size, so chunks
of long runs are grouped. Each chunk is still explained, committed and resumed by itself.
"""

import itertools
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.data.arena import Arena
from pipeline.data.decode import DecodedChunk, Frame, decode_chunk
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources import Chunk, Reading, Shard, chunked, read_shard
from pipeline.data.sources.shards import TABLE_KINDS, reader_died
from pipeline.data.waiting import waiting
from pipeline.run.ledger import Attempt, Attempts, Ledger, Work
from pipeline.settings.preprocess import Preprocess

if TYPE_CHECKING:
    from pipeline.run.preflight import PreparedRun

MOST_PIXEL_BYTES = 128 * 2**20
"""Most bytes of pixels in a work unit of more than one chunk; Ray's default for a block."""


@dataclass(frozen=True)
class ReadPlan:
    """How shards become work units; the same for every shard of a run.

    Attributes:
        reading, preprocess, limits: how images are found, framed and limited.
        chunk_images: most images in a chunk.
        unit_bytes: bytes of encoded images that fill a work unit.
        waits: whether plain photographs are decoded on the device that explains them.
    """

    reading: Reading
    preprocess: Preprocess
    limits: DecodeLimits
    chunk_images: int
    unit_bytes: int
    waits: bool = False

    @classmethod
    def of(cls, run: "PreparedRun", unit_bytes: int) -> "ReadPlan":
        """Make the plan of a run."""
        data = run.config.data
        waits = data.decode == "device"
        return cls(run.reading, run.loaded.preprocess, run.limits, data.chunk_images, unit_bytes, waits)

    def work_units(
        self, shard: Shard, done: Collection[int] = (), attempts: Attempts | None = None
    ) -> Iterator[list[DecodedChunk]]:
        """Stream the chunks of a shard that are not done, decoded and grouped into work units."""
        arena = Arena(MOST_PIXEL_BYTES if self.unit_bytes else 0)
        with closing(DecodeSandbox(decoder=self.limits.decoder)) as sandbox:
            yield from self._grouped(self._decoded(shard, done, attempts or Ledger(), sandbox, arena), arena)

    def _decoded(
        self, shard: Shard, done: Collection[int], attempts: Attempts, sandbox: DecodeSandbox, arena: Arena
    ) -> Iterator[DecodedChunk]:
        """Read and decode; a chunk at which the reading process died is decoded in the sandbox's subprocess."""
        chunks = chunked(read_shard(shard, self.reading), shard, self.chunk_images)
        for ordinal in itertools.count():
            began, work = time.monotonic(), Work("read", shard.ordinal, ordinal)
            attempt = attempts.begin(work) if ordinal not in done else Attempt()
            if attempt.isolated:
                attempts.reach(work, 0)
            chunk = _lost(shard, ordinal) if attempt.quarantined and shard.kind in TABLE_KINDS else next(chunks, None)
            if chunk is not None and ordinal not in done:
                frame: Frame = sandbox.frame_in_subprocess if attempt.isolated else sandbox.frame
                frame = waiting(frame) if self.waits else frame
                decoded = decode_chunk(chunk, self.preprocess, self.limits, frame, arena.room)
                attempts.end(work)
                rules = (self.preprocess, self.limits) if self.waits else None
                yield replace(decoded, seconds=time.monotonic() - began, rules=rules)
            if chunk is None or chunk.last:
                return

    def _grouped(self, chunks: Iterable[DecodedChunk], arena: Arena) -> Iterator[list[DecodedChunk]]:
        unit: list[DecodedChunk] = []
        encoded = pixels = 0
        for chunk in chunks:
            if unit and pixels + chunk.held_bytes > MOST_PIXEL_BYTES:
                yield unit
                unit, encoded, pixels = [], 0, 0
            unit.append(chunk)
            encoded, pixels = encoded + chunk.encoded_bytes, pixels + chunk.held_bytes
            if encoded >= self.unit_bytes:
                yield unit
                arena.close()
                unit, encoded, pixels = [], 0, 0
        if unit:
            yield unit


def _lost(shard: Shard, ordinal: int) -> Chunk:
    """End a Parquet file at a chunk where its library crashes; tars are read in pure Python, which does not crash."""
    return Chunk(shard, ordinal, last=True, failures=(reader_died(shard, ordinal),))
