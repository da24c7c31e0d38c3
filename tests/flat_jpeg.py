"""Writes JPEGs of flat blocks from the standard, without any library; a block has one value per component."""

import struct
from collections.abc import Sequence

Block = tuple[int, ...]
ADOBE = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
"""Marks four components as CMYK, which Adobe stores as 255 minus the ink."""


def flat_jpeg(blocks: list[Block], *, progressive: bool = False, app: tuple[int, bytes] | None = None) -> bytes:
    """Return a JPEG of 8 x 8 blocks from left to right.

    Args:
        blocks: values of the components of each block: grey, or Y, Cb and Cr, or four inks.
        progressive: write the DC coefficients in one scan, and empty AC coefficients in further scans.
        app: an additional marker (such as 0xEE) and its segment.
    """
    components = range(1, len(blocks[0]) + 1)
    frame = struct.pack(">BHHB", 8, 8, 8 * len(blocks), len(components))
    frame += b"".join(struct.pack(">BBB", number, 0x11, 0) for number in components)
    segments = [
        *([app] if app else []),
        (0xDB, b"\0" + b"\1" * 64),  # no quantisation
        (0xC2 if progressive else 0xC0, frame),
        (0xC4, b"\x00" + bytes([0, 0, 0, 12, *[0] * 12]) + bytes(range(12))),  # DC: twelve sizes, four bits each
        (0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\0"),  # AC: one bit, the end of the block
    ]
    scans = [_scan(components, (0, 0 if progressive else 63), _dc_bits(blocks, "" if progressive else "0"))]
    if progressive:  # without AC scans, libjpeg smooths the image as an unfinished preview
        scans += [_scan([number], (1, 63), "0" * len(blocks)) for number in components]
    return b"\xff\xd8" + b"".join(_segment(*each) for each in segments) + b"".join(scans) + b"\xff\xd9"


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _scan(components: Sequence[int], band: tuple[int, int], bits: str) -> bytes:
    named = b"".join(bytes([number, 0]) for number in components)
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return _segment(0xDA, bytes([len(components)]) + named + bytes([*band, 0])) + coded


def _dc_bits(blocks: list[Block], end: str) -> str:
    """Return the DC coefficients as differences from the previous block; `end` ends each block."""
    bits, before = "", [0] * len(blocks[0])
    for block in blocks:
        for place, value in enumerate(block):
            first = 8 * (value - 128)  # the mean of 64 values, as the transform scales it
            bits += _difference(first - before[place]) + end
            before[place] = first
    return bits


def _difference(value: int) -> str:
    size = abs(value).bit_length()
    stored = value if value > 0 else value + (1 << size) - 1
    return f"{size:04b}" + (f"{stored:0{size}b}" if size else "")
