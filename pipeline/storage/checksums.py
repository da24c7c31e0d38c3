"""Parquet files with checksums, so that damage is detected even when only a part of the file is read.

Pages carry the CRC-32 checksums of the Parquet format, and camatlas verifies them on reading. The format has no
checksum for the footer, which holds page offsets, statistics and column names. So camatlas writes the footer's
checksum into the gap before the footer, which other readers ignore.

    PAR1 | pages ... | marker: 12 bytes, CRC-32: 4 bytes | footer | footer length, PAR1

The short headers between pages are not covered: in our tests, damage to them either made a file unreadable or changed
no value. Replacing a file by another valid one is only detected by `camatlas verify`, which compares receipts.
Older files without a footer checksum are read without this check.
"""

import io
import os
import zlib
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

CHECKED_FORMAT = pyarrow.dataset.ParquetFileFormat(
    default_fragment_scan_options=pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Dataset format that verifies page checksums on reading."""
_MARK = b"camatlas.sum"
CHECKSUM_BYTES = len(_MARK) + 4
"""Length of the marker and the checksum before the footer."""
_END_BYTES = 8
"""The end of every Parquet file: the footer's length (4 bytes) and PAR1."""
_FIRST_READ = 1 << 16
"""Bytes first read from the end, as in pyarrow; the footer of a part has about 10,000."""


def checksummed(table: pa.Table, **options: Any) -> bytes:  # noqa: ANN401 - passed to pyarrow
    """Encode a table as a Parquet file with checksums; equal rows give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True, **options)
    data = sink.getvalue()
    start = _footer_start(data[-_END_BYTES:], len(data))
    return data[:start] + _checksum(data[start:]) + data[start:]


def open_checksummed(data: bytes) -> pq.ParquetFile:
    """Open a file given as bytes, verify its footer now and its pages on reading.

    Raises:
        pa.ArrowInvalid: the footer is damaged (a subclass of ValueError).
    """
    check_footer(io.BytesIO(data))
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)


def check_footer(file: BinaryIO) -> None:
    """Verify the checksum of a file's footer; raise pa.ArrowInvalid if it does not match."""
    size = file.seek(0, os.SEEK_END)
    end = _end(file, size, _FIRST_READ)
    if not check_end(end, size):
        check_end(_end(file, size, size - _footer_start(end[-_END_BYTES:], size) + CHECKSUM_BYTES), size)


def check_end(end: bytes, size: int) -> bool:
    """Verify the footer's checksum from the last bytes of a file; return False if more bytes are needed.

    Args:
        end: the last bytes of the file.
        size: bytes of the whole file.

    Raises:
        pa.ArrowInvalid: the checksum does not match.
    """
    footer = _footer_start(end[-_END_BYTES:], size) - (size - len(end))
    if footer < CHECKSUM_BYTES and size > len(end):
        return False
    checksum = end[max(0, footer - CHECKSUM_BYTES) : footer]
    if checksum.startswith(_MARK) and checksum != _checksum(end[footer:]):
        raise pa.ArrowInvalid("its footer was changed after writing: the checksum differs")
    return True


def _end(file: BinaryIO, size: int, length: int) -> bytes:
    file.seek(max(0, size - length))
    return file.read()


def _footer_start(end: bytes, size: int) -> int:
    """Return the offset of the footer, given the last bytes of a file and its size."""
    start = size - _END_BYTES - int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or start < len(b"PAR1"):
        raise pa.ArrowInvalid("it has no valid Parquet footer")
    return start


def _checksum(footer: bytes) -> bytes:
    return _MARK + zlib.crc32(footer).to_bytes(4, "little")
