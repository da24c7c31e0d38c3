"""Finds the rows of images that become known only while they are read: by name, else by the end of the path."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from pipeline.data.sources.keys import Tails, reversed_path, without_suffix


def split_name(path: str) -> tuple[str, str]:
    """Split a member name into key and suffix at the first dot of its base name (suffix in lower case)."""
    folder, slash, base = path.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def row_by_name(rows: Collection[str], stems: Mapping[str, str], key: str) -> str | None:
    """Return the row of an image by its name alone, without comparing it with other rows.

    A key with a suffix is a file. Its row is its full name, or an id: its name (or base name) without the suffix.
    A key without a suffix comes from a tar. Its row is the key, or the original file, with or without its folder.
    """
    if key in rows:
        return key
    stem, dot, _ = key.rpartition(".") if "." in key.rpartition("/")[2] else (key, "", "")
    for name in (stem, stem.rpartition("/")[2]):
        if name in rows:
            return name
        if not dot and name in stems:
            return stems[name]
    return None


def row_stems(rows: Collection[str]) -> dict[str, str]:
    """Return the rows by name up to the first dot, because keys of tars have no suffix; the first one counts."""
    return {split_name(name)[0]: name for name in reversed(list(rows))}


class RowFinder:
    """Finds the row of images that become known only while they are read, such as members of tars.

    Whether another image has the same base name is not known then, so that only rows decide what is unique.
    """

    def __init__(self, rows: Collection[str]) -> None:
        self._rows = rows

    def find(self, key: str) -> str | None:
        """Return the row of an image: that of its name, else that of its path; None if it has none, or several."""
        return self.by_name(key) or self._by_path(key)

    def by_name(self, key: str) -> str | None:
        """Return the row of an image by its name alone, as `row_by_name`."""
        return row_by_name(self._rows, self._stems, key)

    def _by_path(self, key: str) -> str | None:
        path = reversed_path(key)
        for tails, written in ((self._full, path), (self._bare, path), (self._full, without_suffix(path))):
            at, shared = tails.best(written)
            if shared:
                return self._names[at] if at >= 0 else None
        return None

    @cached_property
    def _stems(self) -> Mapping[str, str]:
        return row_stems(self._rows)

    @cached_property
    def _names(self) -> Sequence[str]:
        return list(self._rows)

    @cached_property
    def _full(self) -> Tails:
        return Tails(list(map(reversed_path, self._names)))

    @cached_property
    def _bare(self) -> Tails:
        return Tails([without_suffix(reversed_path(name)) for name in self._names])
