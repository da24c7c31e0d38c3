"""Reads a manifest in Parquet in a subprocess: the library is C++, and bytes that crash it must not end a command."""

import io
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.sandbox import Response, Sandbox, serve, start_python
from pipeline.data.sources.objects import bucket, is_url, split_url
from pipeline.errors import StoreError

_DEADLINE_SECONDS = 600.0
_ROWS = 4096
"""Rows of one response."""
_UNREADABLE = (pa.ArrowException, OSError, ValueError, OverflowError)


class UnreadableTableError(ValueError):
    """A Parquet file, or its next row, cannot be read."""


class TableSandbox(Sandbox):
    """A subprocess that reads the columns of a Parquet file, without those of bytes."""

    def __init__(self, location: str) -> None:
        super().__init__(_DEADLINE_SECONDS)
        self._location = location

    def names(self) -> Sequence[str]:
        """Return the names of the columns.

        Raises:
            UnreadableTableError: it is not a Parquet file.
            StoreError: its store cannot be reached.
        """
        found: Sequence[str] = self._ask({})["names"]
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """Stream the rows.

        Raises:
            UnreadableTableError: the next row cannot be read.
            StoreError: its store cannot be reached.
        """
        while rows := self._ask({"next": True})["rows"]:
            yield from rows

    def _start(self) -> "subprocess.Popen[bytes]":
        return start_python("-m", "pipeline.data.sources.manifest_parquet")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._exchange({**request, "location": self._location})[0]
        except (OSError, EOFError):
            raise UnreadableTableError("the Parquet library crashed on it") from None
        if "store" in response:
            raise StoreError(response["store"])
        if "error" in response:
            raise UnreadableTableError(response["error"])
        return response


class _Reader:
    """Handles the requests in the subprocess, with one open file."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def handle(self, request: dict[str, Any], _: bytes) -> Response:
        """Open the file and return its columns, or return its next rows."""
        try:
            if "next" in request:
                batch = next(self._batches, None)
                return {"rows": [] if batch is None else batch.to_pylist()}, b""
            file = pq.ParquetFile(_open(request["location"]))
            self._names = [field.name for field in file.schema_arrow if not _holds_bytes(field.type)]
            self._batches = (batch for batch in file.iter_batches(_ROWS, columns=self._names) if len(batch))
            return {"names": self._names}, b""
        except StoreError as error:
            return {"store": str(error)}, b""
        except _UNREADABLE as error:
            return {"error": str(error)}, b""


def _open(location: str) -> BinaryIO | str:
    if not is_url(location):
        return location
    url, name = split_url(location)
    return io.BytesIO(bucket(url, "data.manifest").read(name))


def _holds_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds images and not their paths."""
    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


if __name__ == "__main__":
    serve(_Reader().handle)
