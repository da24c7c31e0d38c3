"""Finds files that hold maps: the parts of a run, or Parquet files with these columns.

| column | other name | meaning |
|---|---|---|
| key | image_key | key of the image |
| map | | bytes row by row, or a list of numbers |
| height, width | map_height, map_width | cells |
| dtype | map_dtype | of the bytes: f32 (also without the column), f16 or u8 |
| min, max | map_min, map_max | range of the map; needed for f16 and u8 |
| target | | class that the map explains; without it, any |
| method | | needed where the files hold several |
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.errors import ConfigError, DamagedRunError, first_line, nearest
from pipeline.storage.base import Store
from pipeline.storage.local_store import LocalStore
from pipeline.storage.run_folder import MANIFEST, PartName, Receipt, checked_part_names
from pipeline.storage.store import open_store
from schemas.manifest import digest_of

WHERE = "explain.methods.stored.path"
_NAMES = {
    "key": ("key", "image_key"),
    "map": ("map",),
    "height": ("height", "map_height"),
    "width": ("width", "map_width"),
    "dtype": ("dtype", "map_dtype"),
    "min": ("min", "map_min"),
    "max": ("max", "map_max"),
    "target": ("target",),
    "method": ("method",),
}
_REQUIRED = ("key", "map", "height", "width")
_UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class MapFiles:
    """The files that hold maps: the parts of a run, or Parquet files of one folder.

    Attributes:
        store: the folder.
        names: the files, sorted.
        is_run: whether they are the parts of a run.
    """

    store: Store
    names: tuple[str, ...]
    is_run: bool

    @classmethod
    def find(cls, path: str) -> "MapFiles":
        """Find the files that a path or URL names: a run folder, a Parquet file, or several by `*`.

        Raises:
            ConfigError: there is none.
            DamagedRunError: a part of the run is missing.
        """
        folder, _, last = path.rstrip("/").rpartition("/")
        if last.endswith(".parquet") or "*" in last:
            store = open_store(folder or ("/" if path.startswith("/") else "."))
            names = tuple(sorted(name for name in store.names() if fnmatchcase(name, last)))
            if not names:
                raise ConfigError.one(WHERE, f"there is no file '{path}'", "give a run folder, or Parquet files")
            return cls(store, names, is_run=False)
        store = open_store(path)
        if MANIFEST not in store.names():
            raise ConfigError.one(
                WHERE, f"'{path}' is no run folder: it has no {MANIFEST}", f"or name Parquet files: {path}/*.parquet"
            )
        return cls(store, tuple(part.file for part in checked_part_names(store)), is_run=True)

    def digest(self) -> str:
        """Hash what the files hold: the sha256 of each, from its receipt where it has one; names do not matter."""
        return digest_of(sorted(self._sha256(name) for name in self.names))

    def _sha256(self, name: str) -> str:
        part = PartName.parse(name) if self.is_run else None
        if part is not None:
            try:
                return Receipt.from_json(self.store.read(part.receipt)).sha256
            except (FileNotFoundError, ValueError, TypeError):  # rebuilt by `camatlas verify`
                pass
        if isinstance(self.store, LocalStore):
            with Path(self.store.folder, name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(self.store.read(name)).hexdigest()

    def schema(self) -> pa.Schema:
        """Return the columns of the first file; raises ConfigError if it cannot be read."""
        return self._dataset().schema

    def fragments(self) -> list[ds.Fragment]:
        """Return every row group of every file; raises ConfigError if a file cannot be read."""
        try:
            return [group for file in self._dataset().get_fragments() for group in file.split_by_row_group()]
        except _UNREADABLE as error:
            raise self._unreadable(error) from None

    def _dataset(self) -> ds.Dataset:
        try:
            return self.store.dataset(self.names)
        except _UNREADABLE as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError.one(WHERE, f"the maps in '{self.store.url}' cannot be read: {first_line(error)}")


def columns_of(schema: pa.Schema, url: str) -> dict[str, str]:
    """Return the columns by what they mean; raises ConfigError if some that are needed are missing."""
    found = {
        meaning: name
        for meaning, names in _NAMES.items()
        if (name := next((name for name in names if name in schema.names), None)) is not None
    }
    missing = [" or ".join(_NAMES[meaning]) for meaning in _REQUIRED if meaning not in found]
    if missing:
        raise ConfigError.one(
            WHERE, f"'{url}' has no column {', '.join(missing)}", f"it has {', '.join(schema.names[:20])}"
        )
    return found


def rows_of(fragment: ds.Fragment, columns: Mapping[str, str], meanings: Sequence[str]) -> pa.Table:
    """Read columns of one row group, by what they mean; those that the files do not have are left out.

    Raises:
        DamagedRunError: the row group cannot be read.
    """
    wanted = {meaning: ds.field(columns[meaning]) for meaning in meanings if meaning in columns}
    try:
        return fragment.to_table(columns=wanted)
    except _UNREADABLE as error:
        raise DamagedRunError(f"stored maps in {fragment.path} cannot be read: {first_line(error)}") from None


def chosen_method(known: Sequence[str], wanted: str | None, url: str) -> str | None:
    """Return the method whose maps are meant; None if the files name none.

    Raises:
        ConfigError: the method is unknown, or it is not stated which of several is meant.
    """
    where = "explain.methods.stored.method"
    if wanted is None and len(known) > 1:
        raise ConfigError.one(where, f"'{url}' has maps of several methods", f"one of {', '.join(sorted(known))}")
    if wanted is not None and not known:
        raise ConfigError.one(where, f"the maps in '{url}' name no method", "leave it out")
    if wanted is not None and wanted not in known:
        raise ConfigError.one(where, f"'{url}' has no maps of '{wanted}'", nearest(wanted, known))
    return wanted if wanted is not None or not known else known[0]
