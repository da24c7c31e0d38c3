"""External sorting: divides the keys into ranges, distributes the rows to one file per range, sorts each range."""

import bisect
import contextlib
import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from pipeline.errors import StoreError

SORTED_BY = ("image_key", "shard", "target", "method")
_SAMPLED = 200_000
_SLACK = 1.1
"""Factor for the number of ranges: their bounds come from a sample, so some ranges are larger than the mean."""


@dataclass
class KeySample:
    """An evenly spaced sample of image keys, of bounded size.

    Attributes:
        rows: rows seen so far.
        size: their bytes, as counted by the caller.
        stride: distance between sampled rows; doubled when the sample grows too large.
        keys: keys of the rows 0, `stride`, 2 `stride`, ...
    """

    rows: int = 0
    size: int = 0
    stride: int = 1
    keys: list[str] = field(default_factory=list)

    def add(self, keys: Sequence[str], size: int) -> None:
        """Sample the keys of the next rows."""
        self.keys.extend(keys[-self.rows % self.stride :: self.stride])
        self.rows += len(keys)
        self.size += size
        while len(self.keys) > _SAMPLED:
            self.keys, self.stride = self.keys[::2], 2 * self.stride

    def bounds(self, rows: int, size: int) -> list[str]:
        """Return the first key of each range but the lowest; ranges hold at most about `rows` rows and `size` bytes."""
        share = max(self.rows / rows, self.size / size)
        ranges = math.ceil(_SLACK * share) if share > 1 else 1
        ordered = sorted(self.keys)
        return sorted({ordered[len(ordered) * index // ranges] for index in range(1, ranges)})


class Spill:
    """Distributes rows to ranges, with a few rows in memory and the rest in one file per range.

    Args:
        folder: for the files; the caller removes it.
        bounds: first key of each range but the lowest, in order.
        held: bytes of rows to keep in memory before they are written.
    """

    def __init__(self, folder: Path, bounds: Sequence[str], held: int) -> None:
        self._folder, self._bounds, self._limit = folder, bounds, held
        self._schema: pa.Schema | None = None
        self._held: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Add rows; raise ValueError if their columns differ from those of earlier rows."""
        if self._schema is None:
            self._schema = table.schema
        if not table.schema.equals(self._schema):
            raise ValueError("its columns differ from those of the other parts")
        self._held.append(table)
        if sum(held.nbytes for held in self._held) >= self._limit:
            self._distribute()

    def tables(self) -> Iterator[pa.Table]:
        """Yield the sorted rows of one range after another; no rows can be added afterwards."""
        self._distribute()
        for index in range(len(self._bounds) + 1):
            if self._file(index).exists():
                yield self._take(index).sort_by([(name, "ascending") for name in SORTED_BY])

    def _distribute(self) -> None:
        """Write the rows held in memory to the files of their ranges."""
        if not self._held:
            return
        table = pa.concat_tables(self._held).sort_by("image_key")
        self._held = []
        keys = table["image_key"].to_pylist()
        edges = [0, *(bisect.bisect_left(keys, bound) for bound in self._bounds), len(keys)]
        for index, (start, end) in enumerate(itertools.pairwise(edges)):
            if start < end:
                self._append(index, table.slice(start, end - start))

    def _append(self, index: int, table: pa.Table) -> None:
        compressed = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            _translated_errors(self._folder),
            self._file(index).open("ab") as file,
            pa.ipc.new_stream(file, table.schema, options=compressed) as stream,
        ):
            stream.write_table(table)

    def _take(self, index: int) -> pa.Table:
        """Read the file of a range and remove it."""
        path = self._file(index)
        batches = []
        with _translated_errors(self._folder):
            with path.open("rb") as file:
                while file.tell() < path.stat().st_size:  # each write appended a separate Arrow stream
                    batches.append(pa.ipc.open_stream(file).read_all())
            path.unlink()
        return pa.concat_tables(batches)

    def _file(self, index: int) -> Path:
        return self._folder / f"{index:06d}.arrow"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder for the files of a spill and remove it afterwards; raise StoreError if that fails."""
    with _translated_errors(Path(tempfile.gettempdir())):
        folder = tempfile.TemporaryDirectory(prefix="camatlas-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


@contextlib.contextmanager
def _translated_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot sort in {folder}: {error.strerror or error}. It needs room for all rows of the run. Free up "
            "space, or set the environment variable TMPDIR to another folder."
        ) from error
