"""Parquet read in a process of its own: the library is C++, and bytes that it dies of must not take a command with it.

Tasks that read for a run may die and are counted; the driver may not, and asks here. A file of which the child dies
twice ends there, as one that is damaged.
"""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.sandbox import Answer, Sandbox, serve, started
from pipeline.data.sources.parquet import ROWS_AT_A_TIME, UNREADABLE, ReaderDiedError, Row, rows_here
from pipeline.data.sources.shards import Shard
from pipeline.errors import StoreError

Count = Callable[[bytes], int | None]
"""Tells the rows of a Parquet file by its footer; None when it does not say."""
_DEADLINE_SECONDS = 600.0
"""For a hang; a store that is slow or down is told long before, by itself."""
_TRIES = 2
"""Somebody else may have killed the child once."""


class ParquetSandbox(Sandbox):
    """A child process that reads Parquet files; begun when the first one is asked for."""

    def __init__(self) -> None:
        super().__init__(_DEADLINE_SECONDS)
        self._asking = Lock()

    def count(self, footer: bytes) -> int | None:
        """Tell the rows of a file by its footer; None when it does not say, or the child dies of it."""
        for _ in range(_TRIES if footer else 0):
            if answer := self._asked({}, footer):
                rows: int | None = answer[0]["rows"]
                return rows
        return None

    def rows(self, shard: Shard, columns: dict[str, str], only_keys: bool) -> Iterator[Row]:
        """Stream the rows of a file, as `rows_here`.

        Raises:
            ReaderDiedError: the child died of what comes next.
            ValueError: the file cannot be read, or not further.
            StoreError: its store cannot be reached.
        """
        question = {"shard": asdict(shard), "columns": columns, "only_keys": only_keys}
        start, tries = 0, _TRIES
        while tries:
            answer = self._asked({**question, "start": start})
            if answer is None:
                tries -= 1
                continue
            told, images = answer
            yield from _unpacked(told["rows"], images)
            start += len(told["rows"])
            _raise_if_told(told)
            if len(told["rows"]) < ROWS_AT_A_TIME:
                return
        raise ReaderDiedError

    def _begin(self) -> "subprocess.Popen[bytes]":
        return started("-m", "pipeline.data.sources.parquet_sandbox")

    def _asked(self, question: dict[str, Any], data: bytes = b"") -> Answer | None:
        """Ask, one thread at a time; None when the child died or hung."""
        with self._asking:
            try:
                return self._exchange(question, data)
            except (OSError, EOFError):  # a hang is an OSError too
                self.close()
                return None


class Reader:
    """The child's part. It goes on with the file that it has open where it can."""

    def __init__(self) -> None:
        self._next: dict[str, Any] = {}
        self._rows: Iterator[Row] = iter(())

    def answer(self, asked: dict[str, Any], data: bytes) -> Answer:
        """Answer with the number of rows by a footer, or with the next rows of a file."""
        del asked["bytes"]
        return self._more(asked) if asked else ({"rows": _counted(data)}, b"")

    def _more(self, asked: dict[str, Any]) -> Answer:
        if asked != self._next:
            rows = rows_here(Shard(**asked["shard"]), asked["columns"], asked["only_keys"])
            self._rows = itertools.islice(rows, asked["start"], None)
        found: list[Row] = []
        told: dict[str, Any] = {}
        try:
            found.extend(itertools.islice(self._rows, ROWS_AT_A_TIME))  # keeps those before an error
        except StoreError as error:
            told["store"] = str(error)
        except UNREADABLE as error:
            told["error"] = str(error)
        ended = told or len(found) < ROWS_AT_A_TIME
        self._next = {} if ended else {**asked, "start": asked["start"] + len(found)}
        told["rows"] = [(row.key, _size(row.image), row.label, row.boxes) for row in found]
        return told, b"".join(row.image or b"" for row in found)


def _counted(footer: bytes) -> int | None:
    try:
        rows: int = pq.read_metadata(pa.BufferReader(footer)).num_rows
        return rows
    except (pa.ArrowException, OSError):
        return None  # reading it will tell what is wrong, as a failure row


def _size(image: bytes | None) -> int | None:
    return None if image is None else len(image)


def _unpacked(rows: list[list[Any]], images: bytes) -> Iterator[Row]:
    start = 0
    for key, size, label, boxes in rows:
        yield Row(key, None if size is None else images[start : start + size], label, boxes)
        start += size or 0


def _raise_if_told(told: dict[str, Any]) -> None:
    if "store" in told:
        raise StoreError(told["store"])
    if "error" in told:
        raise ValueError(told["error"])


if __name__ == "__main__":
    serve(Reader().answer)
