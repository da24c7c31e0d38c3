"""Test images, created by Pillow or byte by byte, and functions to decode them."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.data.decode import DecodedChunk, decode_chunk, decode_image
from pipeline.data.framing import PixelArray
from pipeline.data.limits import DecodeLimits, UnreadableImageError
from pipeline.data.sources.shards import Boxes, Chunk, Sample, Shard
from pipeline.settings.preprocess import Preprocess

SHARD = Shard(0, "s.tar", "tar", "", 0, "")
PRESET = Preprocess(224, 256)
LIMITS = DecodeLimits()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return an image of random values, the same for the same size."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(width * 100_003 + height).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(values[:, :, 0] if bands == 1 else values, mode=None if bands in (1, 3, 4) else mode)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sample(data: bytes, key: str = "k", boxes: Boxes | None = None) -> Sample:
    return Sample(key, "s.tar", data, 3, boxes)


def decoded(*samples: Sample, preprocess: Preprocess = PRESET, limits: DecodeLimits = LIMITS) -> DecodedChunk:
    return decode_chunk(Chunk(SHARD, 0, last=True, samples=samples), preprocess, limits)


def pixels(data: bytes, preprocess: Preprocess = PRESET) -> PixelArray:
    """Decode one image, which must succeed, and return its pixels."""
    chunk = decoded(sample(data), preprocess=preprocess)
    assert chunk.failures == ()
    return chunk.pixels_NHWC[0]


def code(data: bytes, limits: DecodeLimits = LIMITS) -> str:
    """Decode one image, which must fail, and return the code."""
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(data, limits)
    return caught.value.code


def difference(one: npt.ArrayLike, two: npt.ArrayLike) -> int:
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(two, np.int16)).max())


def chunk_of(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes, interlaced: bool = False
) -> bytes:
    """Return a PNG built byte by byte."""
    head = chunk_of(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    return (
        b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + chunk_of(b"IDAT", zlib.compress(rows)) + chunk_of(b"IEND", b"")
    )
