"""Bombs: small files that ask for much. Each ends as pixels or a refusal, in little memory and time."""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pictures import LIMITS, PRESET, chunk_of, noise, png, saved
from PIL import Image

from pipeline.decode import UnreadableImageError
from pipeline.isolation import Apart

MEGABYTE = 1 << 20
ALLOWED_MEGABYTES = 50
ROW = b"\0abc"


def header_only(width: int, height: int) -> bytes:
    return png(width, height, 8, 2, ROW)


def small(*before: bytes) -> bytes:
    """A PNG of one pixel, with chunks before its data."""
    return png(1, 1, 8, 2, ROW, *before)


def packed(megabytes: int) -> bytes:
    return zlib.compress(bytes(megabytes * MEGABYTE), 9)


def animation(kind: str, frames: int) -> bytes:
    images = [Image.new("RGB", (2, 2), (n % 256, n // 256, 7)) for n in range(frames)]
    return saved(images[0], kind, save_all=True, append_images=images[1:])


def jpeg_with(marker: int, head: bytes, segments: int) -> bytes:
    """A JPEG with large segments of one kind."""
    segment = struct.pack(">BBH", 0xFF, marker, 65_535) + head + bytes(65_533 - len(head))
    good = saved(noise(16, 16), "JPEG")
    return good[:2] + segment * segments + good[2:]


def looping_exif() -> bytes:
    """EXIF whose directory is its own next one, with a tag that points at itself, many times."""
    tags = b"".join(struct.pack(">HHII", 0x8769 + n % 3, 4, 1, 8) for n in range(5000))
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 5000) + tags + struct.pack(">I", 8)


def webp_header(width: int, height: int) -> bytes:
    good = bytearray(saved(noise(16, 16), "WEBP", lossless=True))
    struct.pack_into("<I", good, 21, (width - 1) | (height - 1) << 14)
    return bytes(good)


BOMBS = {
    "PNG of 50,000 x 50,000": header_only(50_000, 50_000),
    "PNG of one long row": header_only(2**31 - 1, 1),
    "PNG of one long column": header_only(1, 2**31 - 1),
    "PNG of the largest size": header_only(2**31 - 1, 2**31 - 1),
    "PNG of zeros, 30,000 x 30,000": png(30_000, 30_000, 1, 0, bytes(30_000 * 3_751)),
    "PNG of zeros, longer than its size": png(64, 64, 8, 2, bytes(64 * MEGABYTE)),
    "interlaced PNG that lies": header_only(9_000, 9_000)[:28] + b"\1" + header_only(9_000, 9_000)[29:],
    "PNG with an unpacking zTXt": small(chunk_of(b"zTXt", b"a\0\0" + packed(200))),
    "PNG with an unpacking iTXt": small(chunk_of(b"iTXt", b"a\0\1\0\0\0" + packed(200))),
    "PNG with 10,000 texts": small(*(chunk_of(b"tEXt", b"k%d\0v" % n) for n in range(10_000))),
    "PNG with 30 unpacking texts": small(*(chunk_of(b"zTXt", b"k%d\0\0" % n + packed(60)) for n in range(30))),
    "PNG with an unpacking profile": small(chunk_of(b"iCCP", b"a\0\0" + packed(200))),
    "PNG with EXIF in circles": small(chunk_of(b"eXIf", looping_exif()[6:])),
    "PNG of 10,000 frames": animation("PNG", 10_000),
    "GIF of 10,000 frames": animation("GIF", 10_000),
    "WEBP of 2,000 frames": animation("WEBP", 2_000),
    "WEBP of the largest size": webp_header(16_384, 16_384),
    "JPEG of the largest size": saved(noise(16, 16), "JPEG").replace(
        struct.pack(">HH", 16, 16), struct.pack(">HH", 65_500, 65_500)
    ),
    "JPEG with 10 MB of profiles": jpeg_with(0xE2, b"ICC_PROFILE\0\1\1", 160),
    "JPEG with EXIF in circles": jpeg_with(0xE1, looping_exif(), 16),
}


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    with closing(Apart()) as child:
        child.frame_apart(saved(noise(64, 64)), None, PRESET, LIMITS)  # starts it, and loads what decoding needs
        yield child


def peak(process: int) -> int:
    """Most memory the process held since it was last asked, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return kilobytes << 10


def spent(process: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def outcome(apart: Apart, data: bytes) -> str:
    try:
        apart.frame_apart(data, None, PRESET, LIMITS)
    except UnreadableImageError as error:
        return error.code
    return "decoded"


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_small_in_memory_and_time(apart: Apart, name: str) -> None:
    assert apart._child is not None
    process = apart._child.pid
    peak(process)
    before, data = peak(process), BOMBS[name]
    began = spent(process)
    assert outcome(apart, data) in ("decoded", "too_large", "corrupt", "format")
    assert apart._child is not None, "no child died"
    assert apart._child.pid == process
    assert peak(process) - before <= ALLOWED_MEGABYTES * MEGABYTE + len(data)
    assert spent(process) - began < 2
