"""The images that `data.keys` lists, in the run file itself, in a text file or in a CSV file."""

import csv
import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.data.account_files import counted
from pipeline.data.sources.objects import is_url, open_text
from pipeline.errors import ConfigError
from pipeline.settings.data import ImageKey
from schemas.key_file import KEY_COLUMN, SHARD_COLUMN, unescaped
from schemas.manifest import digest_of

WHERE = "data.keys"
_EXAMPLES = 3
_LONGEST = 200
"""Characters of a key that a message shows."""
Named = tuple[str, str]
"""Shard and key of an image; an empty shard stands for any."""


@dataclass(frozen=True)
class KeyList:
    """A list of images.

    Attributes:
        of_shard: the keys of the images of each shard, by its name; "" stands for any shard.
    """

    of_shard: Mapping[str, frozenset[str]]

    @property
    def anywhere(self) -> frozenset[str]:
        """Return the keys that are listed without a shard."""
        return self.of_shard.get("", frozenset())

    def concerns(self, shard: str) -> bool:
        """Return whether a shard may hold images of the list."""
        return bool(self.anywhere) or shard in self.of_shard

    def holds(self, shard: str, key: str) -> bool:
        """Return whether an image is in the list."""
        return key in self.anywhere or key in self.of_shard.get(shard, ())

    def missing(self, found: Mapping[str, frozenset[str]]) -> "KeyList":
        """Return the part of the list that has no image, given the keys of all images by shard."""
        known = {**found, "": frozenset[str]().union(*found.values())}
        left = {shard: keys - known.get(shard, frozenset()) for shard, keys in self.of_shard.items()}
        return KeyList({shard: keys for shard, keys in left.items() if keys})

    def examples(self) -> str:
        """Return some of the keys, for messages."""
        named = ((shard, key) for shard, keys in self.of_shard.items() for key in keys)
        return ", ".join(_shown(*one) for one in heapq.nsmallest(_EXAMPLES, named))

    def __len__(self) -> int:
        return sum(map(len, self.of_shard.values()))

    @cached_property
    def digest(self) -> str:
        """Return the sha256 of the list, whose order and repetitions do not matter."""
        return digest_of({shard: sorted(keys) for shard, keys in self.of_shard.items()})


@dataclass(frozen=True)
class KeyMatch:
    """How the keys of a list and the images of a dataset belong together.

    Attributes:
        digest, n: sha256 of the list, and the number of its keys.
        images: number of images that are chosen.
        missing, examples: number of keys that no image has, and some of them.
        several, example: number of keys without a shard that images of several shards have, and one of them.
    """

    digest: str
    n: int
    images: int
    missing: int = 0
    examples: str = ""
    several: int = 0
    example: str = ""

    def identity(self) -> dict[str, Any]:
        """Return what a run's identity records of the list."""
        return {"n": self.n, "sha256": self.digest}

    def note(self) -> str:
        """Say how many images are chosen, and which keys have none or several."""
        text = f"{WHERE}: {counted(self.images, 'image')}"
        if self.missing:
            text += f"; {missing(self.missing, self.n, self.examples)}"
        if self.several:
            text += (
                f"; several shards have {counted(self.several, 'key')}, such as {self.example}: all of these "
                f"images are taken (a CSV file with the columns {SHARD_COLUMN},{KEY_COLUMN} tells them apart)"
            )
        return text


def missing(number: int, of: int, examples: str) -> str:
    """Say that some keys of a list have no image."""
    return f"{number:,} of its {counted(of, 'key')} {'has' if number == 1 else 'have'} no image, such as {examples}"


def read_keys(given: str | Sequence[str | ImageKey] | None) -> KeyList | None:
    """Read `data.keys`: the list itself, or the path or URL of a file; None stands for all images.

    A text file has one key in each line. A CSV file has the column `image_key` and perhaps `shard`, or a single column
    without a header.

    Raises:
        ConfigError: the file cannot be read, names no image, or has rows without a key.
        StoreError: its store cannot be reached.
    """
    if given is None:
        return None
    if not isinstance(given, str):
        return _collected(("", one) if isinstance(one, str) else (one.shard, one.image_key) for one in given)
    if not is_url(given) and Path(given).exists() and not Path(given).is_file():
        raise ConfigError.one(WHERE, f"'{given}' is no file", "name a text or CSV file of keys")
    found = _collected(_in_file(given))
    if not found:
        raise ConfigError.one(WHERE, f"'{given}' names no image", "list one key in each line, or leave data.keys out")
    return found


def _collected(named: Iterable[Named]) -> KeyList:
    of_shard: dict[str, set[str]] = defaultdict(set)
    for shard, key in named:
        of_shard[shard].add(key)
    return KeyList({shard: frozenset(keys) for shard, keys in of_shard.items()})


def _in_file(path: str) -> Iterator[Named]:
    """Read a file of keys; one is CSV if its name says so, or if its first line names the column of the keys."""
    with open_text(WHERE, path) as file:
        try:
            first = file.readline()
            header = next(csv.reader([first]), [])
            if KEY_COLUMN in header:
                yield from _of_columns(path, csv.reader(file), header)
            elif path.lower().endswith(".csv"):
                yield from _of_one_column(path, csv.reader(itertools.chain([first], file)))
            else:
                yield from (("", _line(text)) for text in itertools.chain([first], file) if text.strip())
        except (csv.Error, OSError, UnicodeDecodeError) as error:
            raise ConfigError.one(WHERE, f"cannot read '{path}': {error}") from None


def _line(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _of_columns(path: str, rows: Iterable[list[str]], header: list[str]) -> Iterator[Named]:
    places = [header.index(name) if name in header else len(header) for name in (SHARD_COLUMN, KEY_COLUMN)]
    for number, row in enumerate(rows, 2):
        shard, key = (unescaped(row[place]) if place < len(row) else "" for place in places)
        if key:
            yield shard, key
        elif any(row):
            raise ConfigError.one(WHERE, f"row {number} of '{path}' has no {KEY_COLUMN}")


def _of_one_column(path: str, rows: Iterable[list[str]]) -> Iterator[Named]:
    for number, row in enumerate(rows, 1):
        if len(row) > 1:
            what = f"row {number} of '{path}' has {len(row)} cells, and no header names the column {KEY_COLUMN}"
            raise ConfigError.one(WHERE, what, f"begin with the line {SHARD_COLUMN},{KEY_COLUMN}, or list keys alone")
        if any(row):
            yield "", row[0]


def _shown(shard: str, key: str) -> str:
    return repr(key[:_LONGEST]) + (f" in shard {shard[:_LONGEST]!r}" if shard else "")
