"""Selects the images of a run: `data.sample` draws them, or `data.keys` lists them; `data.limit` takes the first.

Each reader decides independently whether an image is drawn. The run stores only one threshold for this, however large
the dataset is. Of a list, each shard carries the keys of its own images.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.data.account import LabelAccount
from pipeline.data.account_files import counted, quoted
from pipeline.data.sources import Draw, Reading, Shard, images_of, list_items, read_shard
from pipeline.data.sources.key_list import WHERE, KeyList, KeyMatch
from pipeline.data.sources.parquet import Rows, rows_in_process
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.data.sources.shards import KNOWN_KINDS, clean_text, is_image
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig

_EXAMPLES = 3


def select(
    data: DataConfig, shards: list[Shard], reading: Reading, keys: KeyList | None = None
) -> tuple[list[Shard], Reading]:
    """Return the shards that contain images of the run, and how to read them.

    Args:
        data: the section of the run file.
        shards, reading: all shards, and how they are read.
        keys: the list of `data.keys`.

    Raises:
        ConfigError: no image is in the list.
    """
    with parquet_sandbox() as sandbox:
        if keys is not None:
            shards, reading = listed(shards, reading, keys, sandbox.rows)
        elif data.sample is not None:
            shards, reading = drawn(shards, reading, data.sample.n, data.sample.seed, sandbox.rows)
        return limited(shards, reading, data.limit, sandbox.rows), reading


def with_notes(account: LabelAccount, reading: Reading) -> LabelAccount:
    """Return the account with what must be known of the list of images."""
    return account if reading.keys is None else replace(account, notes=(reading.keys.note(), *account.notes))


def drawn(
    shards: list[Shard], reading: Reading, n: int, seed: int, rows: Rows = rows_in_process
) -> tuple[list[Shard], Reading]:
    """Draw n images from all shards, or all images if there are at most n.

    The keys of all images are listed, from the headers of tars and the keys of Parquet files. Shards without a drawn
    image are left out, unless they are damaged or empty, which must be reported.
    """
    draw = Draw(n, seed)
    held: Counter[int] = Counter()
    damaged: set[int] = set()

    def ranks() -> Iterator[tuple[str, int]]:
        for index, shard in enumerate(shards):
            for item in list_items(shard, reading, rows):
                if is_image(item):
                    held[index] += 1
                    yield draw.rank(shard.name, item.key), index
                else:
                    damaged.add(index)

    smallest = heapq.nsmallest(n, ranks())
    draw = replace(draw, of=held.total(), last=smallest[-1][0] if held.total() > n else None)
    counts = Counter(index for _, index in smallest)
    kept = [
        _keep_drawn_files(replace(shard, images=counts[index], held=held[index]), draw)
        for index, shard in enumerate(shards)
        if counts[index] or index in damaged or not held[index]
    ]
    return _renumber(kept), replace(reading, draw=draw)


@dataclass(frozen=True)
class _Searched:
    """A shard in which listed images were searched: its number of images, some of their keys, and those listed."""

    shard: Shard
    held: int
    first: tuple[str, ...]
    damaged: bool

    @property
    def found(self) -> frozenset[str]:
        return self.shard.only or frozenset()


def listed(
    shards: list[Shard], reading: Reading, keys: KeyList, rows: Rows = rows_in_process
) -> tuple[list[Shard], Reading]:
    """Take the images of a list from all shards that may hold any.

    The keys of their images are listed, as for a sample. Shards without a listed image are left out; a damaged one is
    kept while keys are missing, because it may have held their images.

    Raises:
        ConfigError: no image is in the list.
    """
    searched = [_searched(shard, reading, keys, rows) for shard in shards if keys.concerns(shard.name)]
    found = {one.shard.name: one.found for one in searched if one.found}
    if not found:
        raise _none_found(keys, searched or [_Searched(shard, 0, (), damaged=False) for shard in shards])
    missing = keys.missing(found)
    kept = [one.shard for one in searched if one.found or (one.damaged and missing)]
    several = _several(keys, found)
    match = KeyMatch(
        keys.digest, len(keys), sum(map(len, found.values())), len(missing), missing.examples(), len(several),
        several.examples(),
    )  # fmt: skip
    return _renumber(kept), replace(reading, keys=match)


def _searched(shard: Shard, reading: Reading, keys: KeyList, rows: Rows) -> _Searched:
    """Search the images of a list in one shard; the files of a folder, or images of a manifest, are thinned out."""
    names, damaged = [], False
    for item in list_items(shard, reading, rows):
        if is_image(item):
            names.append(item.key)
        else:
            damaged = True
    holds = [keys.holds(shard.name, name) for name in names]
    only = frozenset(itertools.compress(names, holds))
    if shard.kind in KNOWN_KINDS:
        shard = replace(
            shard,
            members=tuple(itertools.compress(shard.members, holds)),
            entries=tuple(itertools.compress(shard.entries, holds)),
        )
    taken = replace(shard, images=sum(holds), held=len(names), only=only)
    return _Searched(taken, len(names), tuple(names[:_EXAMPLES]), damaged)


def _several(keys: KeyList, found: Mapping[str, frozenset[str]]) -> KeyList:
    """Return the keys that are listed without a shard, and that images of several shards have."""
    once, again = set[str](), set[str]()
    for shard, names in found.items():
        named = keys.anywhere & names - keys.of_shard.get(shard, frozenset())
        again |= once & named
        once |= named
    return KeyList({"": frozenset(again)} if again else {})


def _none_found(keys: KeyList, searched: Sequence[_Searched]) -> ConfigError:
    """Return the error for a list of which the dataset has no image."""
    names = [name for one in searched for name in one.first][:_EXAMPLES]
    damaged = sum(one.damaged for one in searched)
    what = f"no image is in this list of {counted(len(keys), 'key')}, such as {keys.examples()}; "
    if names:
        what += f"images are called {quoted(names)}"
    else:
        what += f"the shards are called {quoted([one.shard.name for one in searched[:_EXAMPLES]])}"
    what += f"; {counted(damaged, 'shard')} could not be read to the end" if damaged else ""
    return ConfigError.one(WHERE, what, "keys and shards are written as the columns image_key and shard of a run")


def limited(shards: list[Shard], reading: Reading, limit: int | None, rows: Rows = rows_in_process) -> list[Shard]:
    """Take the first `limit` images in shard order: whole shards, then part of the next one."""
    if limit is None:
        return shards
    taken: list[Shard] = []
    left = limit
    for shard in shards:
        count = sum(1 for _ in itertools.islice(images_of(read_shard(shard, reading, rows)), left))
        taken.append(replace(shard, images=count, take=count if count == left else None))
        left -= count
        if not left:
            break
    return taken


def _keep_drawn_files(shard: Shard, draw: Draw) -> Shard:
    """Remove the files of a folder, or the images of a manifest, that are not drawn."""
    members = tuple(member for member in shard.members if draw.holds(shard.name, clean_text(member)))
    entries = tuple(entry for entry in shard.entries if draw.holds(shard.name, entry.key))
    return replace(shard, members=members, entries=entries)


def _renumber(shards: Sequence[Shard]) -> list[Shard]:
    return [replace(shard, ordinal=ordinal) for ordinal, shard in enumerate(shards)]
