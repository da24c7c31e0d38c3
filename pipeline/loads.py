"""What travels from reading to explaining: loads of decoded chunks.

A load is a chunk, or a few: each costs the driver the same few milliseconds, however much is in it, so chunks of long
runs travel together. Each is still explained, committed and resumed by itself.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.decode import DecodedChunk, DecodeLimits, decode_chunk
from pipeline.framing import Preprocess
from pipeline.isolation import Apart
from pipeline.sources import Reading, Shard, chunked, read_shard

if TYPE_CHECKING:
    from pipeline.preflight import PreparedRun

MOST_PIXEL_BYTES = 128 * 2**20
"""Most pixels of a load, in bytes, where it holds more than one chunk; Ray's own default for a block."""


@dataclass(frozen=True)
class Recipe:
    """How shards become loads, the same for every shard of a run.

    Attributes:
        reading, preprocess, limits: how images are found, framed and limited.
        chunk_images: most images in a chunk.
        load_bytes: bytes of encoded images that make a load full.
    """

    reading: Reading
    preprocess: Preprocess
    limits: DecodeLimits
    chunk_images: int
    load_bytes: int

    @classmethod
    def of(cls, run: "PreparedRun", load_bytes: int) -> "Recipe":
        """Take the recipe of a run."""
        return cls(run.reading, run.loaded.preprocess, run.limits, run.config.data.chunk_images, load_bytes)

    def loads(self, shard: Shard, done: Collection[int] = ()) -> Iterator[list[DecodedChunk]]:
        """Stream the chunks of a shard that are not done, decoded, in loads."""
        chunks = chunked(read_shard(shard, self.reading), shard, self.chunk_images)
        pending = (chunk for chunk in chunks if chunk.ordinal not in done)
        with Apart() as apart:
            yield from self._together(
                decode_chunk(chunk, self.preprocess, self.limits, apart.frame) for chunk in pending
            )

    def _together(self, chunks: Iterable[DecodedChunk]) -> Iterator[list[DecodedChunk]]:
        load: list[DecodedChunk] = []
        encoded = pixels = 0
        for chunk in chunks:
            if load and pixels + chunk.pixels_NHWC.nbytes > MOST_PIXEL_BYTES:
                yield load
                load, encoded, pixels = [], 0, 0
            load.append(chunk)
            encoded, pixels = encoded + chunk.encoded_bytes, pixels + chunk.pixels_NHWC.nbytes
            if encoded >= self.load_bytes:
                yield load
                load, encoded, pixels = [], 0, 0
        if load:
            yield load
