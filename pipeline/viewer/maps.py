"""Reads single maps from the files of a run: the row group that holds them, checked against its checksums."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.errors import DamagedRunError
from pipeline.maps.codec import FloatArray
from pipeline.results.query import Run, decode_row
from pipeline.results.sql_engine import MAP_COLUMNS, damage_named
from pipeline.viewer.bounded import Bounded

CACHE_BYTES = 40_000_000


class MapReader:
    """Finds the map of a row by its file and its place in it, and remembers the row groups read last."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._groups: Bounded[pa.Table] = Bounded(CACHE_BYTES, lambda table: int(table.nbytes))

    def map_of(self, row: Mapping[str, Any]) -> FloatArray | None:
        """Return the map of a row of the index, (u, v); None for a failure.

        Raises:
            DamagedRunError: the file is damaged, or gone.
            StoreError: the store does not answer.
        """
        if row["error_code"] is not None:
            return None
        fragment = self._fragments[row["viewer_file"]]
        name = fragment.path.rpartition("/")[2]
        with damage_named(self._run.store, name):
            starts = self._starts(fragment)
            group = bisect_right(starts, row["viewer_place"]) - 1
            table = self._groups.get((fragment.path, group), lambda: _read(fragment, group))
            found = table.slice(row["viewer_place"] - starts[group], 1).to_pylist()
        if not found or found[0]["image_key"] != row["image_key"] or found[0]["method"] != row["method"]:
            raise DamagedRunError(f"{self._run.store.url}/{name} was replaced since it was opened: reload")
        return decode_row(found[0])

    @cached_property
    def _fragments(self) -> Sequence[ds.Fragment]:
        return list(self._run.dataset().get_fragments())

    def _starts(self, fragment: ds.Fragment) -> list[int]:
        sizes = [group.num_rows for group in fragment.row_groups]
        return [0, *accumulate(sizes)][: len(sizes)]


def _read(fragment: ds.Fragment, group: int) -> pa.Table:
    wanted = [*MAP_COLUMNS, "image_key", "method"]
    return fragment.subset(row_group_ids=[group]).to_table(columns=wanted).combine_chunks()
