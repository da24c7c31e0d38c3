"""Matches the rows of label and box files with images, whose names are rarely written in the same way.

A row names its image by the full key, the key without its suffix, a path from a folder above, an absolute path of
another machine, or the base name alone. Paths are compared from their end: the row of an image is the one that shares
most of its last parts with it, if it is the only one. Of an image whose path is known, the folders above its root
count too.
"""

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

_END = "\0"
"""Between the parts of a reversed path: smaller than any character of a name, so that paths with a common tail lie
side by side in sorted order."""
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""Folders that divide a dataset; a row of one of them does not apply to an image of another."""


@dataclass
class Matching:
    """The rows of a file by the image that they apply to.

    Attributes:
        row_of: name of the row of each image that has one.
        ways: number of images by the way in which their row was found.
        ambiguous: some rows that apply to several images, or share one with another row of the same rank.
        conflicts: pairs of rows that name one image, written in two ways.
    """

    row_of: dict[str, str] = field(default_factory=dict)
    ways: Counter[str] = field(default_factory=Counter)
    ambiguous: list[str] = field(default_factory=list)
    conflicts: list[tuple[str, str]] = field(default_factory=list)

    def add(self, key: str, row: str, way: str) -> None:
        """Note the row of an image."""
        self.row_of[key] = row
        self.ways[way] += 1


def reversed_path(name: str) -> str:
    """Write a path from its end, in the one way in which paths are compared.

    `\\` becomes `/`, `.` and empty parts are dropped, the suffix is in lower case, and letters are composed (NFC).
    """
    text = name if name.isascii() else unicodedata.normalize("NFC", name)
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts:
        return ""
    stem, dot, suffix = parts[-1].rpartition(".")
    if stem:
        parts[-1] = stem + dot + suffix.lower()
    return _END.join(reversed(parts))


def without_suffix(path: str) -> str:
    """Return a reversed path without the suffix of its file."""
    base, end, rest = path.partition(_END)
    stem = base.rpartition(".")[0]
    return (stem or base) + end + rest


class Tails:
    """Reversed paths in sorted order, to find the one that shares most parts with another."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._order = sorted(range(len(paths)), key=paths.__getitem__)
        self._paths = [paths[i] for i in self._order]

    def best(self, path: str) -> tuple[int, int]:
        """Return the position of the path that shares most parts with `path`, and their number.

        The position is -1 if several paths share as many; the number is 0 if none shares any.
        """
        at = bisect_left(self._paths, path)
        shared = {i: common_parts(self._paths[i], path) for i in (at - 1, at) if 0 <= i < len(self._paths)}
        most = max(shared.values(), default=0)
        if not most:
            return -1, 0
        near = range(max(0, at - 2), min(len(self._paths), at + 2))
        as_near = [i for i in near if common_parts(self._paths[i], path) >= most]
        return (self._order[as_near[0]] if len(as_near) == 1 else -1), most


def common_parts(one: str, other: str) -> int:
    """Count the parts that two reversed paths share; none if they lie in different splits of a dataset."""
    if one.partition(_END)[0] != other.partition(_END)[0]:
        return 0
    shared = 0
    for mine, theirs in zip(one.split(_END), other.split(_END), strict=False):
        if mine != theirs:
            splits = {SPLITS.get(mine, ""), SPLITS.get(theirs, "")}
            return 0 if len(splits) == 2 and "" not in splits else shared
        shared += 1
    return shared


def match(rows: Collection[str], keys: Sequence[str], root: str) -> Matching:
    """Find the row of each image of a folder.

    Args:
        rows: names in the file, each once.
        keys: the images, as paths below the root.
        root: path of the folder.
    """
    found = Matching()
    open_keys = list(_matched_as_written(rows, keys, found))
    used = set(found.row_of.values())
    open_rows = [row for row in rows if row not in used]
    if open_keys and open_rows:
        _match_alike(open_rows, open_keys, found)
        used = set(found.row_of.values())
        open_rows = [row for row in open_rows if row not in used]
        if open_rows and len(found.row_of) < len(keys):
            _match_tails(open_rows, keys, reversed_path(root), found)
    return found


def _matched_as_written(rows: Collection[str], keys: Sequence[str], found: Matching) -> Iterator[str]:
    """Match images whose key, with or without its suffix, is a row; yield the others."""
    for key in keys:
        stem = stem_of(key)
        if key in rows:
            found.add(key, key, "path")
        elif stem in rows:
            found.add(key, stem, "path without suffix")
        else:
            yield key


def stem_of(key: str) -> str:
    """Return a key without the suffix of its file."""
    folder, slash, base = key.rpartition("/")
    return folder + slash + (base.rpartition(".")[0] or base)


def _match_alike(rows: Sequence[str], keys: Sequence[str], found: Matching) -> None:
    """Match paths that differ only in how they are written."""
    by_path: dict[str, str] = {}
    for row in rows:
        path = reversed_path(row)
        if path in by_path:
            found.conflicts.append((by_path[path], row))
        by_path[path] = row
    paths = Counter(map(reversed_path, keys))
    for key in keys:
        path = reversed_path(key)
        if paths[path] > 1:
            continue  # two files whose names differ in nothing else: neither row is certain
        for way, written in (("path", path), ("path without suffix", without_suffix(path))):
            if written in by_path and key not in found.row_of:
                found.add(key, by_path[written], way)


def _match_tails(rows: Sequence[str], keys: Sequence[str], root: str, found: Matching) -> None:
    """Match paths by the longest tail that they share, where only one row and one image share it."""
    paths = [f"{reversed_path(key)}{_END}{root}" for key in keys]
    left = _claim(rows, keys, paths, found)
    if left and len(found.row_of) < len(keys):
        _claim(left, keys, list(map(without_suffix, paths)), found, " without suffix")


def _claim(rows: Sequence[str], keys: Sequence[str], paths: Sequence[str], found: Matching, how: str = "") -> list[str]:
    """Let each row claim the image with the longest common tail; return the rows that no image has."""
    tails = Tails(paths)
    claims: dict[str, list[tuple[int, str]]] = {}
    left: list[str] = []
    for row in rows:
        at, shared = tails.best(reversed_path(row))
        if at >= 0 and keys[at] not in found.row_of:
            claims.setdefault(keys[at], []).append((shared, row))
        elif shared and at < 0:
            found.ambiguous.append(row)
        else:
            left.append(row)
    for key, claimed in claims.items():
        most = max(shared for shared, _ in claimed)
        best = [row for shared, row in claimed if shared == most]
        if len(best) == 1:
            found.add(key, best[0], ("base name" if most == 1 else "end of the path") + how)
        else:
            found.ambiguous.extend(best)
    return left


class RowIndex:
    """Finds the row of images that become known only while they are read, such as members of tars.

    Whether another image has the same base name is not known then, so that only rows decide what is unique.
    """

    def __init__(self, rows: Iterable[str]) -> None:
        self._rows = list(rows)
        paths = list(map(reversed_path, self._rows))
        self._full, self._bare = Tails(paths), Tails(list(map(without_suffix, paths)))

    def find(self, key: str) -> str | None:
        """Return the row of an image; None if it has none, or several."""
        path = reversed_path(key)
        for tails, written in ((self._full, path), (self._bare, path), (self._full, without_suffix(path))):
            at, shared = tails.best(written)
            if shared:
                return self._rows[at] if at >= 0 else None
        return None
