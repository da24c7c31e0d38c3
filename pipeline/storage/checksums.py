"""Parquet files that tell their own damage, however little of them is read.

Pages carry the checksums (CRC-32) that the format provides for, and readers of ours compare them. The format has none
for the footer, which says where pages lie, which of them may be skipped, and how columns are called: so its checksum
stands in the gap before it, where other readers do not look.

    PAR1 | pages ... | seal: 12 bytes, CRC-32 | footer | its length, PAR1

Not covered are the short headers between pages: damage to them makes a file unreadable or changes no value, as far as
tests could find. That a whole file was replaced by another sound one is seen by `camatlas verify` alone, which knows
the receipts. Files without a seal, written before there were any, are read without these checks.
"""

import io
import os
import zlib
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

CHECKED = pyarrow.dataset.ParquetFileFormat(
    default_fragment_scan_options=pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""The format of datasets whose pages are compared with their checksums as they are read."""
_MARK = b"camatlas.sum"
CHECKSUM_BYTES = len(_MARK) + 4
"""So long is a seal."""
_END_BYTES = 8
"""The length of the footer, and PAR1."""
_FIRST_READ = 1 << 16
"""Bytes from the end, as many as pyarrow reads first; the footer of a part has about 10,000."""


def checksummed(table: pa.Table, **options: Any) -> bytes:  # noqa: ANN401 - those of pyarrow
    """Write a table as the bytes of a Parquet file with checksums; the same rows make the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, **options)
    data = sink.getvalue()
    start = _footer_start(data[-_END_BYTES:], len(data))
    return data[:start] + _checksum(data[start:]) + data[start:]


def open_checksummed(data: bytes) -> pq.ParquetFile:
    """Open the bytes of a file, whose pages are compared with their checksums as they are read.

    Raises:
        pa.ArrowInvalid: the footer is damaged; a ValueError.
    """
    check_footer(io.BytesIO(data))
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)


def check_footer(file: BinaryIO) -> None:
    """Compare the footer of a file with its seal; raises pa.ArrowInvalid when it is another."""
    size = file.seek(0, os.SEEK_END)
    end = _end(file, size, _FIRST_READ)
    if not check_end(end, size):
        check_end(_end(file, size, size - _footer_start(end[-_END_BYTES:], size) + CHECKSUM_BYTES), size)


def check_end(end: bytes, size: int) -> bool:
    """Compare the footer with its seal, by the last bytes of a file; False when they do not reach back to the seal.

    Raises:
        pa.ArrowInvalid: it is another.
    """
    footer = _footer_start(end[-_END_BYTES:], size) - (size - len(end))
    if footer < CHECKSUM_BYTES and size > len(end):
        return False
    checksum = end[max(0, footer - CHECKSUM_BYTES) : footer]
    if checksum.startswith(_MARK) and checksum != _checksum(end[footer:]):
        raise pa.ArrowInvalid("its footer is not the one that was written, its checksum differs")
    return True


def _end(file: BinaryIO, size: int, length: int) -> bytes:
    file.seek(max(0, size - length))
    return file.read()


def _footer_start(end: bytes, size: int) -> int:
    """Where the footer begins, by the last bytes of a file."""
    start = size - _END_BYTES - int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or start < len(b"PAR1"):
        raise pa.ArrowInvalid("it does not end as a Parquet file does")
    return start


def _checksum(footer: bytes) -> bytes:
    return _MARK + zlib.crc32(footer).to_bytes(4, "little")
