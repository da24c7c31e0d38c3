"""Reads Parquet files in a subprocess: the library is C++, and bytes that crash it must not end a whole command.

Ray tasks that read for a run may crash, and their attempts are counted. The driver must not crash, so it reads through
this module. A file that crashes the subprocess twice ends there, like a damaged file.
"""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.sandbox import Response, Sandbox, serve, start_python
from pipeline.data.sources.columns import Columns, TableFacts, facts_of
from pipeline.data.sources.parquet import (
    ROWS_AT_A_TIME,
    UNREADABLE,
    ReaderDiedError,
    Row,
    row_in_process,
    rows_in_process,
)
from pipeline.data.sources.shards import Shard
from pipeline.data.sources.tables import open_table
from pipeline.errors import StoreError

Known = tuple[int | None, TableFacts | None]
"""The number of rows and the schema of a table; None where it is not known, because the file is damaged."""

Describe = Callable[[bytes, str], Known]
"""Describes a Parquet file, given its footer, or an Arrow file, given its path."""
_DEADLINE_SECONDS = 600.0
"""Guards against a hang; a slow or unreachable store is reported much earlier by the store itself."""
_TRIES = 2
"""Something else may have killed the subprocess once."""


class ParquetSandbox(Sandbox):
    """A subprocess that reads Parquet files; starts on demand."""

    def __init__(self) -> None:
        super().__init__(_DEADLINE_SECONDS)
        self._lock = Lock()

    def describe(self, footer: bytes, arrow: str = "") -> Known:
        """Return the number of rows and the schema of a table; (None, None) if it is damaged or crashes the subprocess.

        Args:
            footer: the footer of a Parquet file.
            arrow: the path of an Arrow file, if it is one.
        """
        for _ in range(_TRIES if footer or arrow else 0):
            if response := self._request({"describe": arrow}, footer):
                return response[0]["rows"], _facts(response[0]["facts"])
        return None, None

    def rows(self, shard: Shard, columns: Columns, only_keys: bool) -> Iterator[Row]:
        """Stream the rows of a file, like `rows_in_process`.

        Raises:
            ReaderDiedError: the next rows crashed the subprocess.
            ValueError: the file, or its next row, cannot be read.
            StoreError: its store cannot be reached.
        """
        request = {"shard": asdict(replace(shard, table=None, only=None)), "columns": columns, "only_keys": only_keys}
        start, tries = 0, _TRIES
        while tries:
            response = self._request({**request, "start": start})
            if response is None:
                tries -= 1
                continue
            fields, images = response
            yield from _unpacked(fields["rows"], images)
            start += len(fields["rows"])
            _raise_reported(fields)
            if len(fields["rows"]) < ROWS_AT_A_TIME:
                return
        raise ReaderDiedError

    def row(self, shard: Shard, columns: Columns, number: int, key: str) -> Row | None:
        """Read one row of a file, like `row_in_process`; raises as `rows`."""
        request = {
            "shard": asdict(replace(shard, table=None, only=None)),
            "columns": columns,
            "row": number,
            "key": key,
        }
        for _ in range(_TRIES):
            if response := self._request(request):
                _raise_reported(response[0])
                return next(_unpacked(response[0]["rows"], response[1]), None)
        raise ReaderDiedError

    def _start(self) -> "subprocess.Popen[bytes]":
        return start_python("-m", "pipeline.data.sources.parquet_sandbox")

    def _request(self, request: dict[str, Any], data: bytes = b"") -> Response | None:
        """Send a request, one thread at a time; return None if the subprocess died or hung."""
        with self._lock:
            try:
                return self._exchange(request, data)
            except (OSError, EOFError):  # TimeoutError is an OSError
                self.close()
                return None


@dataclass
class _Shared:
    """The subprocess that nested blocks of one process share, and how many of them are open."""

    sandbox: ParquetSandbox = field(default_factory=ParquetSandbox)
    lock: Lock = field(default_factory=Lock)
    users: int = 0


_SHARED = _Shared()


@contextmanager
def parquet_sandbox() -> Iterator[ParquetSandbox]:
    """Give the subprocess that reads Parquet files; blocks inside of a block share one, and the outermost ends it."""
    with _SHARED.lock:
        _SHARED.users += 1
    try:
        yield _SHARED.sandbox
    finally:
        with _SHARED.lock:
            _SHARED.users -= 1
            if not _SHARED.users:
                _SHARED.sandbox.close()


class Reader:
    """Handles requests in the subprocess; continues with the open file if the request is for its next rows."""

    def __init__(self) -> None:
        self._next: dict[str, Any] = {}
        self._rows: Iterator[Row] = iter(())

    def handle(self, request: dict[str, Any], data: bytes) -> Response:
        """Return the number of rows, given a footer, or the next rows of a file, or one of its rows."""
        del request["bytes"]
        if "row" in request:
            return _one_row(request)
        return self._next_rows(request) if "shard" in request else (_described(data, request["describe"]), b"")

    def _next_rows(self, request: dict[str, Any]) -> Response:
        if request != self._next:
            all_rows = rows_in_process(Shard(**request["shard"]), request["columns"], request["only_keys"])
            self._rows = itertools.islice(all_rows, request["start"], None)
        rows: list[Row] = []
        response: dict[str, Any] = {}
        try:
            rows.extend(itertools.islice(self._rows, ROWS_AT_A_TIME))  # extend keeps the rows before an error
        except StoreError as error:
            response["store"] = str(error)
        except UNREADABLE as error:
            response["error"] = str(error)
        ended = response or len(rows) < ROWS_AT_A_TIME
        self._next = {} if ended else {**request, "start": request["start"] + len(rows)}
        return _packed(response, rows)


def _one_row(request: dict[str, Any]) -> Response:
    response: dict[str, Any] = {}
    row = None
    try:
        row = row_in_process(Shard(**request["shard"]), request["columns"], request["row"], request["key"])
    except StoreError as error:
        response["store"] = str(error)
    except UNREADABLE as error:
        response["error"] = str(error)
    return _packed(response, [] if row is None else [row])


def _packed(response: dict[str, Any], rows: list[Row]) -> Response:
    fields = [(row.key, _size(row.image), row.label, row.boxes, row.problem, row.more) for row in rows]
    return {**response, "rows": fields}, b"".join(row.image or b"" for row in rows)


def _described(footer: bytes, arrow: str) -> dict[str, Any]:
    """Return the number of rows and the facts of a schema; what is damaged is reported by reading the file."""
    try:
        if arrow:
            with open_table(Shard(0, "", "arrow", arrow, 0, "")) as table:
                return {"rows": table.rows(), "facts": asdict(facts_of(table.schema))}
        metadata = pq.read_metadata(pa.BufferReader(footer))
    except (pa.ArrowException, OSError, ValueError):
        return {"rows": None, "facts": None}
    return {"rows": metadata.num_rows, "facts": _facts_of_footer(metadata)}


def _facts_of_footer(metadata: pq.FileMetaData) -> dict[str, Any] | None:
    try:
        return asdict(facts_of(metadata.schema.to_arrow_schema()))
    except (pa.ArrowException, ValueError):
        return None


def _facts(fields: dict[str, Any] | None) -> TableFacts | None:
    if fields is None:
        return None
    names = tuple((column, tuple(names)) for column, names in fields["label_names"])
    return TableFacts(tuple((name, kind) for name, kind in fields["columns"]), names)


def _size(image: bytes | None) -> int | None:
    return None if image is None else len(image)


def _unpacked(rows: list[list[Any]], images: bytes) -> Iterator[Row]:
    start = 0
    for key, size, label, boxes, problem, more in rows:
        yield Row(key, None if size is None else images[start : start + size], label, boxes, problem, more)
        start += size or 0


def _raise_reported(response: dict[str, Any]) -> None:
    if "store" in response:
        raise StoreError(response["store"])
    if "error" in response:
        raise ValueError(response["error"])


if __name__ == "__main__":
    serve(Reader().handle)
