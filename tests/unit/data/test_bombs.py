"""Decompression bombs: each is decoded or refused, as expected, in little memory and time."""

import functools
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing

import pytest
from gauges import MEGABYTE, within
from pictures import LIMITS, PRESET, chunk_of, noise, png, saved
from PIL import Image

from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.limits import DecodeLimits, UnreadableImageError

ALLOWED_MEGABYTES = 50
ROW = b"\0abc"
WITH_GIF = DecodeLimits(("JPEG", "PNG", "WEBP", "GIF"))


def header_only(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, ROW)


def small(*before: bytes) -> bytes:
    """Return a PNG of one pixel, with chunks before its data."""
    return png(1, 1, 8, 2, ROW, *before)


@functools.cache
def packed(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes * MEGABYTE), 9)


def animation(kind: str, frames: int) -> bytes:
    images = [Image.new("RGB", (2, 2), (n % 256, n // 256, 7)) for n in range(frames)]
    return saved(images[0], kind, save_all=True, append_images=images[1:])


def jpeg_with(marker: int, head: bytes, segments: int) -> bytes:
    """Return a JPEG with large segments of one kind."""
    segment = struct.pack(">BBH", 0xFF, marker, 65_535) + head + bytes(65_533 - len(head))
    good = saved(noise(16, 16), "JPEG")
    return good[:2] + segment * segments + good[2:]


def looping_exif() -> bytes:
    """Return EXIF whose directory links to itself, with many tags that point to it."""
    tags = b"".join(struct.pack(">HHII", 0x8769 + n % 3, 4, 1, 8) for n in range(5000))
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5000) + tags + struct.pack(">I", 8)


def huge_exif(size: int) -> bytes:
    """Return `size` bytes of EXIF, with 1,000 tags that each claim all of them."""
    tags = b"".join(struct.pack(">HHII", tag, 7, size - 8, 8) for tag in range(1, 1001))
    return (b"MM\0*\0\0\0\x08" + struct.pack(">H", 1000) + tags).ljust(size, b"\0")


def jpeg_with_exif(payload: bytes) -> bytes:
    """Return a JPEG with EXIF of any length, split into segments, which Pillow joins."""
    good, room = saved(noise(16, 16), "JPEG"), 65_533 - 6
    pieces = [b"Exif\0\0" + payload[start : start + room] for start in range(0, len(payload), room)]
    return good[:2] + b"".join(struct.pack(">HH", 0xFFE1, len(each) + 2) + each for each in pieces) + good[2:]


def webp_header(width: int, height: int) -> bytes:
    good = bytearray(saved(noise(16, 16), "WEBP", lossless=True))
    struct.pack_into("<I", good, 21, (width - 1) | (height - 1) << 14)
    return bytes(good)


BOMBS = {
    "PNG of 50,000 x 50,000": ("too_large", header_only(50_000, 50_000)),
    "PNG of one long row": ("too_large", header_only(2**31 - 1, 1)),
    "PNG of one long column": ("too_large", header_only(1, 2**31 - 1)),
    "PNG of the largest size": ("too_large", header_only(2**31 - 1, 2**31 - 1)),
    "PNG of zeros, 30,000 x 30,000": ("too_large", png(30_000, 30_000, 1, 0, bytes(30_000 * 3_751))),
    "PNG of zeros, longer than its size": ("decoded", png(64, 64, 8, 2, bytes(64 * MEGABYTE))),
    "interlaced PNG of a false size": ("too_large", png(9_000, 9_000, 8, 2, ROW, interlaced=True)),
    "interlaced PNG without most of its data": ("corrupt", png(3_000, 3_000, 8, 2, ROW, interlaced=True)),
    "PNG with a zTXt of 200 MB": ("corrupt", small(chunk_of(b"zTXt", b"a\0\0" + packed(200)))),
    "PNG with an iTXt of 200 MB": ("corrupt", small(chunk_of(b"iTXt", b"a\0\1\0\0\0" + packed(200)))),
    "PNG with 10,000 texts": ("decoded", small(*(chunk_of(b"tEXt", b"k%d\0v" % n) for n in range(10_000)))),
    "PNG with 30 texts of 60 MB": (
        "corrupt", small(*(chunk_of(b"zTXt", b"k%d\0\0" % n + packed(60)) for n in range(30))),
    ),
    "PNG with a profile of 200 MB": ("corrupt", small(chunk_of(b"iCCP", b"a\0\0" + packed(200)))),
    "PNG with cyclic EXIF": ("decoded", small(chunk_of(b"eXIf", looping_exif()[6:]))),
    "PNG with 10 MB of EXIF": ("decoded", small(chunk_of(b"eXIf", huge_exif(10 * MEGABYTE)))),
    "PNG of 10,000 frames": ("decoded", animation("PNG", 10_000)),
    "GIF of 10,000 frames": ("format", animation("GIF", 10_000)),
    "WEBP of 2,000 frames": ("decoded", animation("WEBP", 2_000)),
    "WEBP of the largest size": ("too_large", webp_header(16_384, 16_384)),
    "JPEG of the largest size": (
        "too_large",
        saved(noise(16, 16), "JPEG").replace(struct.pack(">HH", 16, 16), struct.pack(">HH", 65_500, 65_500)),
    ),
    "JPEG with 10 MB of profiles": ("decoded", jpeg_with(0xE2, b"ICC_PROFILE\0\1\1", 160)),
    "JPEG with cyclic EXIF": ("decoded", jpeg_with(0xE1, looping_exif(), 16)),
    "JPEG with 10 MB of EXIF": ("decoded", jpeg_with_exif(huge_exif(10 * MEGABYTE))),
}  # fmt: skip
"""The expected outcome and the bytes of each bomb, by name."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[DecodeSandbox]:
    with closing(DecodeSandbox()) as process:
        process.frame_in_subprocess(
            saved(noise(64, 64)), None, PRESET, LIMITS
        )  # starts the subprocess and imports the decoders
        yield process


def outcome(sandbox: DecodeSandbox, data: bytes, limits: DecodeLimits) -> str:
    """Decode within limits of memory and time, and without losing the subprocess."""
    assert sandbox._process is not None
    process = sandbox._process.pid
    with within(2, ALLOWED_MEGABYTES + len(data) / MEGABYTE, process):
        try:
            sandbox.frame_in_subprocess(data, None, PRESET, limits)
            code = "decoded"
        except UnreadableImageError as error:
            code = error.code
        assert sandbox._process is not None
        assert sandbox._process.pid == process
    return code


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_has_the_expected_outcome_in_little_memory_and_time(sandbox: DecodeSandbox, name: str) -> None:
    code, data = BOMBS[name]
    assert outcome(sandbox, data, LIMITS) == code


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_only_one_of_ten_thousand_frames_is_decoded(sandbox: DecodeSandbox, kind: str) -> None:
    assert outcome(sandbox, BOMBS[f"{kind} of 10,000 frames"][1], WITH_GIF) == "decoded"
