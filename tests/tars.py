"""Tars for tests: valid ones, hand-made invalid headers, and helpers to inspect what a reader returned."""

import io
import tarfile
from collections.abc import Callable

from pipeline.data.sources import Failure, Item, Sample, images_of

ReadBytes = Callable[..., list[Item]]
Files = list[tuple[str, bytes]]
BLOCK = tarfile.BLOCKSIZE
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
SAMPLES = {"a": (b"A" * 600, 1), "b": (b"B" * 512, 2), "c": (b"C" * 1025, 3)}
END = b"\0" * 1024


def tar_of(files: Files, kind: str = "ustar", pax_headers: dict[str, str] | None = None) -> bytes:
    """Return a tar of plain files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[kind], pax_headers=pax_headers) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def three_samples(kind: str = "ustar", prefix: str = "") -> Files:
    """Return the members of samples a, b and c, each with an image and a label."""
    return [
        (f"{prefix}{key}.{suffix}", data)
        for key, (image, label) in SAMPLES.items()
        for suffix, data in (("jpg", image), ("cls", str(label).encode()))
    ]


def layout(data: bytes) -> list[tarfile.TarInfo]:
    """Return the members of a valid tar, as read by the standard library."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def padded_end(info: tarfile.TarInfo) -> int:
    return info.offset_data + -(-info.size // BLOCK) * BLOCK


def with_checksum(header: bytearray) -> bytes:
    """Return a header block with the correct checksum."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def header(name: str, size: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """Return a header with any size, any type, and raw bytes at an offset (`at386=...`), even invalid ones."""
    info = tarfile.TarInfo(name)
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    block[156:157] = kind
    for field, value in fields.items():
        start = int(field.removeprefix("at"))
        block[start : start + len(value)] = value
    return with_checksum(block)


def pax_header(payload: bytes, kind: bytes = b"x", size: int | None = None) -> bytes:
    return header("pax", len(payload) if size is None else size, kind) + payload + b"\0" * (-len(payload) % BLOCK)


def plain(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + b"\0" * (-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """Return a PAX record, which begins with its own length."""
    tail = b" " + key + b"=" + value + b"\n"
    length = next(n for n in range(len(tail), len(tail) + 6) if n == len(str(n)) + len(tail))
    return str(length).encode() + tail


def samples(items: list[Item]) -> list[Sample]:
    return [item for item in items if isinstance(item, Sample)]


def keys(items: list[Item]) -> list[str]:
    return [sample.key for sample in samples(items)]


def failures(items: list[Item]) -> list[tuple[str, str]]:
    """Return (key, code) of the failures of images."""
    return [(item.key, item.code) for item in images_of(items) if isinstance(item, Failure)]


def damage_codes(items: list[Item]) -> list[str]:
    return [item.code for item in items if isinstance(item, Failure) and not item.is_image]
