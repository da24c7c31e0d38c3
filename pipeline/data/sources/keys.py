"""Matches the rows of label and box files with images, whose names are rarely written in the same way.

A row names its image by the full key, the key without its suffix, a path from a folder above, an absolute path of
another machine, or the base name alone. Paths are compared from their end: the row of an image is the one that shares
most of its last parts with it, if it is the only one. Of an image whose path is known, the folders above its root
count too.
"""

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_END = "\0"
"""Between the parts of a reversed path: smaller than any character of a name, so that paths with a common tail lie
side by side in sorted order."""
SPLITS = {
    **dict.fromkeys(("train", "training", "training_set", "train_set", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "validation_set", "val_set", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "test_set", "testset"), "test"),
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
    parts = text.replace("\\", "/").split("/")
    if "" in parts or "." in parts:
        parts = [part for part in parts if part not in ("", ".")]
    parts.reverse()
    stem, dot, suffix = parts[0].rpartition(".") if parts else ("", "", "")
    if stem:
        parts[0] = stem + dot + suffix.lower()
    return _END.join(parts)


def without_suffix(path: str) -> str:
    """Return a reversed path without the suffix of its file."""
    base, end, rest = path.partition(_END)
    stem = base.rpartition(".")[0]
    return (stem or base) + end + rest


class Tails:
    """Reversed paths by their base name, to find the one that shares most parts with another.

    Args:
        paths: the paths.
        above: what follows on each of them, such as the folders above a root.
    """

    def __init__(self, paths: Sequence[str], above: str = "") -> None:
        self._paths, self._above = paths, above
        self._one: dict[str, int] = {}
        self._several: dict[str, list[int]] = {}
        for position, path in enumerate(paths):
            base = path.partition(_END)[0]
            first = self._one.setdefault(base, position)
            if first != position:
                self._several.setdefault(base, [first]).append(position)
        for positions in self._several.values():
            positions.sort(key=self._whole)

    def best(self, path: str) -> tuple[int, int]:
        """Return the position of the path that shares most parts with `path`, and their number.

        The position is -1 if several paths share as many; the number is 0 if none shares any. A base name alone is
        not enough for two paths that both name a folder: `cat/1.jpg` says nothing about `dog/1.jpg`.
        """
        base, end, _ = path.partition(_END)
        if base not in self._one:
            return -1, 0
        if base not in self._several:
            at = self._one[base]
            shared = self.shared(at, path)
            return (-1, 0) if shared == 1 and end and _END in self._paths[at] else (at, shared)
        return self._best_of(self._several[base], path)

    def shared(self, position: int, path: str) -> int:
        """Count the parts that a path shares with the one at a position."""
        return common_parts(self._whole(position), path)

    def _whole(self, position: int) -> str:
        return self._paths[position] + self._above

    def _best_of(self, positions: Sequence[int], path: str) -> tuple[int, int]:
        at = bisect_left(positions, path, key=self._whole)
        near = positions[max(0, at - 2) : at + 2]  # paths with a common tail lie side by side
        shared = [self.shared(position, path) for position in near]
        most = max(shared)
        if most == 1 and _END in path and all(_END in self._paths[position] for position in near):
            return -1, 0
        best = [position for position, count in zip(near, shared, strict=True) if count == most]
        return (best[0] if len(best) == 1 else -1), most


def common_parts(one: str, other: str) -> int:
    """Count the parts that two reversed paths share; none if they lie in different splits of a dataset."""
    shared = 0
    for mine, theirs in zip(one.split(_END), other.split(_END), strict=False):
        if mine != theirs:
            differ = mine in SPLITS and theirs in SPLITS and SPLITS[mine] != SPLITS[theirs]
            return 0 if differ else shared
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
    left = list(_matched_as_written(rows, keys, found))
    used = set(found.row_of.values())
    open_rows = _paths(row for row in rows if row not in used)
    images = _paths(keys) if open_rows else {}
    open_rows = _without_repeats(open_rows, images, found)
    if left and open_rows:
        _match_alike(open_rows, {key: images[key] for key in left}, found)
        used = set(found.row_of.values())
        _match_tails({row: path for row, path in open_rows.items() if row not in used}, images, root, found)
    return found


def _without_repeats(rows: Mapping[str, str], images: Mapping[str, str], found: Matching) -> dict[str, str]:
    """Return the rows that do not name, in another way, an image that has a row; note the others, for comparison."""
    matched: dict[str, str] = {}
    for key, row in found.row_of.items() if rows else ():
        path = images[key]
        matched.setdefault(without_suffix(path), row)
        matched[path] = row
    for row, path in rows.items():
        if path in matched:
            found.conflicts.append((matched[path], row))
    return {row: path for row, path in rows.items() if path not in matched}


def _paths(names: Iterable[str]) -> dict[str, str]:
    return {name: reversed_path(name) for name in names}


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


def _match_alike(rows: Mapping[str, str], images: Mapping[str, str], found: Matching) -> None:
    """Match paths that differ only in how they are written; both mappings are from names to reversed paths."""
    by_path: dict[str, str] = {}
    for row, path in rows.items():
        if path in by_path:
            found.conflicts.append((by_path[path], row))
        by_path[path] = row
    twice = repeated(images.values())
    for key, path in images.items():
        if path in twice:
            continue  # two files whose names differ in nothing else: neither row is certain
        for way, written in (("path", path), ("path without suffix", without_suffix(path))):
            if written in by_path and key not in found.row_of:
                found.add(key, by_path[written], way)


def repeated(paths: Iterable[str]) -> set[str]:
    """Return the paths that occur more than once."""
    once: set[str] = set()
    twice: set[str] = set()
    for path in paths:
        (twice if path in once else once).add(path)
    return twice


def _match_tails(rows: Mapping[str, str], images: Mapping[str, str], root: str, found: Matching) -> None:
    """Match paths by the longest tail that they share, where only one row and one image share it."""
    above = _END + reversed_path(root)
    keys = list(images)
    left = _claim(rows, keys, Tails(list(images.values()), above), found) if rows else {}
    if left and len(found.row_of) < len(keys):
        bare = Tails([without_suffix(path) for path in images.values()], above)
        _claim(left, keys, bare, found, " without suffix")


def _claim(
    rows: Mapping[str, str], keys: Sequence[str], tails: Tails, found: Matching, how: str = ""
) -> dict[str, str]:
    """Let each row claim the image with the longest common tail; return the rows that share no tail with an image."""
    claims: dict[str, str] = {}
    tied: set[str] = set()
    left: dict[str, str] = {}
    for row, path in rows.items():
        at, shared = tails.best(path)
        if not shared or (at >= 0 and keys[at] in found.row_of):
            left[row] = path
        elif at < 0:
            found.ambiguous.append(row)
        elif keys[at] not in claims:
            claims[keys[at]] = row
        elif shared >= (rival := tails.shared(at, rows[claims[keys[at]]])):
            tied.add(keys[at])
            if shared > rival:
                claims[keys[at]] = row
                tied.discard(keys[at])
    for at, key in enumerate(keys):
        row = claims.get(key, "")
        if key in tied:
            found.ambiguous.append(row)
        elif key in claims:
            found.add(key, row, ("base name" if tails.shared(at, rows[row]) == 1 else "end of the path") + how)
    return left
