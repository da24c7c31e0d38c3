"""Maps that were made elsewhere, by image key and class.

Only hashes of keys, classes and places are kept in memory, as numbers: 32 bytes a map. Maps are read when they are
asked for, one row group at a time.

Legend: N maps, (u, v) grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.errors import ConfigError
from pipeline.maps.codec import STORED, FloatArray, decode_stack
from pipeline.storage.map_files import WHERE, MapFiles, chosen_method, columns_of, rows_of

_ANY = -1
"""The class of a map that explains any."""
_CONTENT = ("key", "map", "height", "width", "dtype", "min", "max")
_GROUPS_KEPT = 4
_EXAMPLES = 2


@dataclass(frozen=True)
class Found:
    """A stored map (u, v), float32 and finite, or None and why there is none."""

    map_uv: FloatArray | None
    problem: str = ""


class StoredMaps:
    """The maps of one method.

    Args:
        files: the files that hold them.
        method: name of the method; None if the files hold one.

    Attributes:
        method: name of the method; None if the files name none.
        has_targets: whether each map names the class that it explains.
        examples: the first keys.

    Raises:
        ConfigError: columns are missing, the method is unknown or ambiguous, there is no map, or one is there twice.
    """

    def __init__(self, files: MapFiles, method: str | None) -> None:
        self.url = files.store.url
        self._fragments = files.fragments()
        self._columns = columns_of(files.schema(), self.url)
        self._kept: dict[int, pa.Table] = {}
        self.has_targets = "target" in self._columns
        self.method = chosen_method(self._methods(), method, self.url)
        self.examples: tuple[str, ...] = ()
        parts = [self._index(number, fragment) for number, fragment in enumerate(self._fragments)]
        self._hashes_N, self._targets_N, self._places_N2 = _sorted(parts)
        if not len(self):
            raise ConfigError.one(WHERE, f"'{self.url}' holds no map", "wait for the run, or name other files")
        self._check_duplicates()

    def __len__(self) -> int:
        return len(self._hashes_N)

    def holds(self, key: str) -> bool:
        """Tell whether there is a map of an image, of any class."""
        return bool(self._rows(key))

    def find(self, key: str, target: int) -> Found:
        """Return the map of an image and class."""
        rows = self._rows(key)
        if not rows:
            return Found(None, "there is no stored map of this image")
        classes = self._targets_N[rows].tolist()
        for row, stored in zip(rows, classes, strict=True):
            if stored in (target, _ANY):
                return self._decoded(row)
        return Found(None, f"stored map is of class {', '.join(map(str, classes[:5]))}, explained is {target}")

    def _methods(self) -> list[str]:
        """List the methods whose maps the files hold."""
        found = set[str]()
        for fragment in self._fragments if "method" in self._columns else ():
            found.update(rows_of(fragment, self._columns, ["method"])["method"].drop_null().unique().to_pylist())
        return sorted(found)

    def _index(self, number: int, fragment: ds.Fragment) -> tuple[npt.NDArray[Any], ...]:
        """Return hash of the key, class, and place (row group, row) of each map of the method in a row group."""
        table = rows_of(fragment, self._columns, ["key", "height", "target", "method"])
        kept = pc.and_(pc.is_valid(table["key"]), pc.is_valid(table["height"]))  # a method that failed has no height
        if self.method is not None:
            kept = pc.and_(kept, pc.fill_null(pc.equal(table["method"], self.method), False))
        rows = np.flatnonzero(kept.to_numpy())
        table = table.take(pa.array(rows))
        keys = [str(key) for key in table["key"].to_pylist()]
        self.examples = (*self.examples, *keys)[:_EXAMPLES]
        targets = pc.fill_null(table["target"], _ANY) if self.has_targets else np.full(len(rows), _ANY)
        places = np.stack([np.full(len(rows), number), rows], 1)
        return _hashes(keys), np.asarray(targets).astype(np.int64), places.astype(np.int64)

    def _rows(self, key: str) -> list[int]:
        """Return the rows of an image; equal hashes are told apart by their keys."""
        (wanted,) = _hashes([key])
        low, high = (int(np.searchsorted(self._hashes_N, wanted, side)) for side in ("left", "right"))
        return [row for row in range(low, high) if self._value("key", row) == key]

    def _check_duplicates(self) -> None:
        same = (self._hashes_N[1:] == self._hashes_N[:-1]) & (self._targets_N[1:] == self._targets_N[:-1])
        for row in np.flatnonzero(same).tolist():
            key = self._value("key", row)
            if key == self._value("key", row + 1):
                of_class = f" and class {self._targets_N[row]}" if self.has_targets else ""
                raise ConfigError.one(WHERE, f"'{self.url}' holds two maps of image '{key}'{of_class}", "keep one")

    def _value(self, meaning: str, row: int) -> Any:  # noqa: ANN401 - of any column; None without the column
        number, inside = self._places_N2[row].tolist()
        if meaning not in self._columns:
            return None
        value = self._group(number)[meaning][inside].as_py()
        return str(value) if meaning == "key" else value

    def _group(self, number: int) -> pa.Table:
        """Read the maps of a row group; the last few are kept."""
        if number not in self._kept:
            while len(self._kept) >= _GROUPS_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[number] = rows_of(self._fragments[number], self._columns, _CONTENT)
        return self._kept[number]

    def _decoded(self, row: int) -> Found:
        height, width, data = (self._value(meaning, row) for meaning in ("height", "width", "map"))
        if data is None or width is None or min(height, width) < 1:
            return Found(None, f"the stored map has no cells: {height} x {width}")
        if isinstance(data, bytes):
            return self._from_bytes(row, data, int(height), int(width))
        if len(data) != height * width:
            return Found(None, f"the stored map has {len(data)} numbers, not {height} x {width}")
        return _finite(np.asarray(data, np.float32).reshape(int(height), int(width)))

    def _from_bytes(self, row: int, data: bytes, height: int, width: int) -> Found:
        dtype = "f32" if "dtype" not in self._columns else str(self._value("dtype", row))
        ranges = self._value("min", row), self._value("max", row)
        if dtype != "f32" and dtype in STORED and None in ranges:
            return Found(None, f"the stored map is {dtype}, but its min or max is missing")
        ranges_12 = np.array([[0 if value is None else value for value in ranges]], np.float32)
        try:
            return _finite(decode_stack([data], height, width, dtype, ranges_12)[0])
        except ValueError as error:
            return Found(None, f"{error}, the stored one has {len(data)}")


def _sorted(parts: Sequence[tuple[npt.NDArray[Any], ...]]) -> tuple[npt.NDArray[Any], ...]:
    """Concatenate the index of all row groups and sort it by hash and class."""
    empty = (np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros((0, 2), np.int64))
    hashes_N, targets_N, places_N2 = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
    order = np.lexsort((targets_N, hashes_N))
    return hashes_N[order], targets_N[order], places_N2[order]


def _hashes(keys: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Hash keys to 64 bits, the same in every process."""
    return pd.util.hash_array(np.array(keys, object), categorize=False)


def _finite(map_uv: FloatArray) -> Found:
    return Found(map_uv) if np.isfinite(map_uv).all() else Found(None, "the stored map contains NaN or infinity")
