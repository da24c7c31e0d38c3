"""Sorting more rows than fit into memory: cut the keys into ranges, deal the rows out, sort each range by itself."""

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
"""Ranges are cut from a sample, so that some come out larger than the mean."""


@dataclass
class KeySample:
    """Image keys of rows that lie evenly apart, however many rows come.

    Attributes:
        rows: so far.
        size: their bytes, as the caller counts them.
        keys: of the rows 0, `stride`, 2 `stride`, ...
    """

    rows: int = 0
    size: int = 0
    stride: int = 1
    keys: list[str] = field(default_factory=list)

    def add(self, keys: Sequence[str], size: int) -> None:
        """Look at the keys of the next rows."""
        self.keys.extend(keys[-self.rows % self.stride :: self.stride])
        self.rows += len(keys)
        self.size += size
        while len(self.keys) > _SAMPLED:
            self.keys, self.stride = self.keys[::2], 2 * self.stride

    def bounds(self, rows: int, size: int) -> list[str]:
        """First keys of all ranges but the lowest, so that a range holds about so many rows and bytes, or fewer."""
        share = max(self.rows / rows, self.size / size)
        ranges = math.ceil(_SLACK * share) if share > 1 else 1
        ordered = sorted(self.keys)
        return sorted({ordered[len(ordered) * place // ranges] for place in range(1, ranges)})


class Spill:
    """Rows on their way into ranges: a few in memory, the rest in one file for each range.

    Args:
        folder: for the files; it belongs to the caller.
        bounds: first key of each range but the lowest, in order.
        held: bytes of rows that are kept in memory.
    """

    def __init__(self, folder: Path, bounds: Sequence[str], held: int) -> None:
        self._folder, self._bounds, self._most = folder, bounds, held
        self._schema: pa.Schema | None = None
        self._held: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Take rows; raises ValueError when their columns are not those of the rows before."""
        if self._schema is None:
            self._schema = table.schema
        if not table.schema.equals(self._schema):
            raise ValueError("its columns are not those of the others")
        self._held.append(table)
        if sum(held.nbytes for held in self._held) >= self._most:
            self._deal()

    def tables(self) -> Iterator[pa.Table]:
        """Give the rows of one range after the other, sorted; nothing can be added any more."""
        self._deal()
        for place in range(len(self._bounds) + 1):
            if self._file(place).exists():
                yield self._taken(place).sort_by([(name, "ascending") for name in SORTED_BY])

    def _deal(self) -> None:
        """Put what is held into the files of its ranges."""
        if not self._held:
            return
        table = pa.concat_tables(self._held).sort_by("image_key")
        self._held = []
        keys = table["image_key"].to_pylist()
        edges = [0, *(bisect.bisect_left(keys, bound) for bound in self._bounds), len(keys)]
        for place, (start, end) in enumerate(itertools.pairwise(edges)):
            if start < end:
                self._append(place, table.slice(start, end - start))

    def _append(self, place: int, table: pa.Table) -> None:
        compressed = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            _told(self._folder),
            self._file(place).open("ab") as file,
            pa.ipc.new_stream(file, table.schema, options=compressed) as stream,
        ):
            stream.write_table(table)

    def _taken(self, place: int) -> pa.Table:
        """Read the file of a range and remove it."""
        path = self._file(place)
        found = []
        with _told(self._folder):
            with path.open("rb") as file:
                while file.tell() < path.stat().st_size:  # each time rows came, a stream of their own was appended
                    found.append(pa.ipc.open_stream(file).read_all())
            path.unlink()
        return pa.concat_tables(found)

    def _file(self, place: int) -> Path:
        return self._folder / f"{place:06d}.arrow"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the files of a spill, gone afterwards; raises StoreError when none can be made."""
    with _told(Path(tempfile.gettempdir())):
        folder = tempfile.TemporaryDirectory(prefix="camatlas-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot sort in {folder}: {error.strerror or error}. It needs room for the rows of the run; make some, or "
            "name another folder in the environment variable TMPDIR."
        ) from error
