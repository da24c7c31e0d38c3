"""Looks up where images lie, in the rows of a run: only the files that may hold an image are read."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.data.sources.shards import NOWHERE, Extent

Place = tuple[str, str]
"""Names an image: its shard, and its key there."""
_COLUMNS = ("shard", "image_key")


@dataclass(frozen=True)
class _File:
    """A file of a run, and the first and last name of the shards and images in it; None if it does not say them."""

    fragment: ds.Fragment
    bounds: tuple[tuple[str, str] | None, ...]

    @classmethod
    def of(cls, fragment: ds.Fragment) -> "_File":
        return cls(fragment, tuple(_bounds(fragment.metadata, name) for name in _COLUMNS))

    def among(self, places: Sequence[Place]) -> Sequence[Place]:
        """Return those of some images, in order, that may be in this file."""
        shards, keys = self.bounds
        if shards is None or keys is None or shards[0] != shards[1]:  # of a merged copy, or without statistics
            pairs = ((place, zip(self.bounds, place, strict=True)) for place in places)
            return [place for place, bounded in pairs if all(b is None or b[0] <= name <= b[1] for b, name in bounded)]
        shard = shards[0]
        return places[bisect_left(places, (shard, keys[0])) : bisect_right(places, (shard, keys[1]))]

    def extents(self, keys: Collection[str], schema: pa.Schema) -> Mapping[Place, Extent]:
        """Read where the images of these keys lie."""
        columns = [*_COLUMNS, *Extent._fields]
        wanted = pc.field("image_key").isin(sorted(keys))
        found = self.fragment.to_table(schema, columns=columns, filter=wanted, use_threads=False)
        rows: list[dict[str, Any]] = found.group_by(columns).aggregate([]).to_pylist()
        return {(row.pop("shard"), row.pop("image_key")): Extent(**row) for row in rows}


class ImagePlaces:
    """Finds the places of images in an open dataset of rows; threads may share it."""

    def __init__(self, rows: ds.Dataset) -> None:
        self._rows = rows
        self._lock = Lock()
        self._files: list[_File] | None = None

    def find(self, places: Collection[Place]) -> dict[Place, Extent]:
        """Return where images lie; those of which no row says it are left out.

        Raises:
            ArrowException, OSError: a file cannot be read.
        """
        ordered = sorted(place for place in places if _is_text(place))
        found: dict[Place, Extent] = {}
        for file in self._opened():
            if wanted := file.among(ordered):
                extents = file.extents({key for _, key in wanted}, self._rows.schema)
                found |= {place: extents[place] for place in wanted if extents.get(place, NOWHERE) != NOWHERE}
        return found

    def _opened(self) -> list[_File]:
        with self._lock:
            if self._files is None:
                self._files = [_File.of(fragment) for fragment in self._rows.get_fragments()]
            return self._files


def _is_text(place: Place) -> bool:
    """Return whether names can be in a column of text, which lone surrogates cannot."""
    return not any("\ud800" <= letter <= "\udfff" for name in place for letter in name)


def _bounds(metadata: Any, name: str) -> tuple[str, str] | None:  # noqa: ANN401 - pyarrow has no types
    """Return the first and last value of a text column, by the statistics of its row groups."""
    column = metadata.schema.names.index(name)
    groups = [metadata.row_group(group).column(column).statistics for group in range(metadata.num_row_groups)]
    if any(group is None or not group.has_min_max for group in groups):
        return None
    return (min(group.min for group in groups), max(group.max for group in groups)) if groups else ("", "")
