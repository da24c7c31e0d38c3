"""Opens tables of images: Parquet files, and Arrow files as the library `datasets` saves them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from pipeline.data.sources.objects import is_url, open_shard
from pipeline.data.sources.shards import Shard

ROWS_AT_A_TIME = 64
_ARROW_FILE = b"ARROW1"
Record = dict[str, Any]


class Table(Protocol):
    """A table whose rows are read in order, as often as needed."""

    @property
    def schema(self) -> pa.Schema:
        """Return the names and types of its columns."""
        ...

    def rows(self) -> int:
        """Count the rows."""
        ...

    def records(self, columns: list[str], start: int = 0) -> Iterator[Record]:
        """Stream rows from a number on, as dicts of these columns, which exist; a field is named `image.path`."""
        ...


@contextmanager
def open_table(shard: Shard) -> Iterator[Table]:
    """Open a Parquet or an Arrow file.

    Raises:
        ArrowException, OSError, ValueError: the file cannot be read.
    """
    if shard.kind == "arrow":
        with open_shard(shard) if is_url(shard.location) else pa.memory_map(shard.location) as source:
            yield _ArrowTable.of(source)
    else:
        with pq.ParquetFile(open_shard(shard) if is_url(shard.location) else shard.location) as file:
            yield _ParquetTable(file.schema_arrow, file)


@dataclass(frozen=True)
class _ParquetTable:
    schema: pa.Schema
    file: pq.ParquetFile

    def rows(self) -> int:
        count: int = self.file.metadata.num_rows
        return count

    def records(self, columns: list[str], start: int = 0) -> Iterator[Record]:
        groups = list(range(self.file.metadata.num_row_groups))
        while groups and start >= (rows := self.file.metadata.row_group(groups[0]).num_rows):
            start -= rows
            del groups[0]
        for batch in self.file.iter_batches(batch_size=ROWS_AT_A_TIME, row_groups=groups, columns=columns):
            yield from batch.slice(start).to_pylist()
            start = max(0, start - batch.num_rows)


@dataclass(frozen=True)
class _ArrowTable:
    schema: pa.Schema
    source: Any
    is_stream: bool

    @classmethod
    def of(cls, source: Any) -> "_ArrowTable":  # noqa: ANN401 - pyarrow has no types
        is_stream = source.read(len(_ARROW_FILE)) != _ARROW_FILE
        table = cls(pa.schema([]), source, is_stream)
        return cls(table._reader().schema, source, is_stream)

    def rows(self) -> int:
        return sum(batch.num_rows for batch in self._batches())

    def records(self, columns: list[str], start: int = 0) -> Iterator[Record]:
        tops = list(dict.fromkeys(name if name in self.schema.names else name.partition(".")[0] for name in columns))
        nested = [name for name in columns if name not in self.schema.names]
        for batch in self._batches():
            first, start = start, max(0, start - batch.num_rows)
            for row in range(first, batch.num_rows, ROWS_AT_A_TIME):
                part = batch.select(tops).slice(row, ROWS_AT_A_TIME)
                yield from (_only_paths(part, nested) if nested else part.to_pylist())

    def _reader(self) -> Any:  # noqa: ANN401 - as above
        self.source.seek(0)
        return pa.ipc.open_stream(self.source) if self.is_stream else pa.ipc.open_file(self.source)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        reader = self._reader()
        if self.is_stream:
            yield from reader
        else:
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))


def _only_paths(batch: pa.RecordBatch, nested: list[str]) -> Iterator[Record]:
    """Yield records with single fields of structs, so that images are not copied with them."""
    for name in nested:
        top, _, inner = name.partition(".")
        values = batch.column(top).field(inner).to_pylist()
        yield from ({top: {inner: value}} for value in values)
