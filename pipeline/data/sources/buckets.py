"""Shards in object stores: which objects a URL names, and what is known of each before it is read.

Costs: a list request for each 1,000 objects below a prefix or glob; then for each shard one HEAD and two ranged GETs
(one where it has at most 64 KiB, none where it is empty), and more only for a Parquet footer beyond the last 64 KiB.
"""

import io
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from glob import has_magic
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipeline.data.sources.fingerprint import EDGE_BYTES, KINDS, edges_digest, parquet_footer
from pipeline.data.sources.objects import ShardFile, bucket, split_url
from pipeline.data.sources.parquet_sandbox import Count
from pipeline.data.sources.shards import Shard
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import ConfigError, Mistake

if TYPE_CHECKING:
    from pipeline.storage.object_store import ObjectStore

AT_ONCE = 32
"""So many shards are looked at at a time."""
_WHERE = "data.shards"
_MOST_NAMED = 20
_QUERY = re.compile(r"\?[^/]*=")
_PACK = "loose images are packed on a disk, camatlas pack FOLDER DEST, and the shards copied to the store"


def urls_of(word: str) -> list[str]:
    """List the shards that one URL names: an object, a prefix that ends in `/`, or a glob.

    Raises:
        ConfigError: it is no URL of an object store, matches nothing, or names loose images.
        StoreError: the store cannot be reached.
    """
    place, name = split_url(word)
    if "@" in place or _QUERY.search(name):
        raise ConfigError.one(
            _WHERE, "credentials and queries do not belong in a URL", "put credentials in the environment"
        )
    if has_magic(name):
        found = _matching(name, place)
    elif not name or name.endswith("/"):
        found = _inside(word, bucket(place, _WHERE).find(name.rstrip("/"), deep=False))
    else:
        found = [name]
    return [f"{place}/{name}" for name in found]


def look(names: Mapping[str, str], count: Count) -> dict[str, Shard]:
    """Ask what is known of each shard, many at a time.

    Args:
        names: URLs of the shards, and how the run calls them.
        count: tells the rows of a Parquet file by its footer.

    Returns:
        The shards by URL; their ordinals are still to be given.

    Raises:
        ConfigError: some are absent or of an unknown kind; all of them are named.
        StoreError: the store cannot be reached.
    """
    unknown = [url for url in names if _suffix(url) not in KINDS]
    if unknown:
        hint = f"a prefix ends in /; {_PACK}"
        raise ConfigError(Mistake(_WHERE, f"'{url}' is neither a .tar nor a .parquet object", hint) for url in unknown)
    stores = {place: bucket(place, _WHERE) for place in sorted({split_url(url)[0] for url in names})}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(names, pool.map(partial(_shard, stores, count), names.items()), strict=True))
    missing = [url for url, shard in found.items() if shard is None]
    if missing:
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise ConfigError.one(_WHERE, f"no object {', '.join(missing[:_MOST_NAMED])}{more}")
    return {url: shard for url, shard in found.items() if shard is not None}


def _shard(stores: Mapping[str, "ObjectStore"], count: Count, named: tuple[str, str]) -> Shard | None:
    """Look at one shard; None when it is absent."""
    url, called = named
    place, name = split_url(url)
    try:
        stat = stores[place].stat(name)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError.one(_WHERE, f"'{url}' is no name that can be read: {error}") from None
    file = io.BufferedReader(ShardFile(stores[place], name, stat, EDGE_BYTES))
    fingerprint, kind = edges_digest(file, stat.size), KINDS[_suffix(url)]
    rows = count(parquet_footer(file, stat.size)) if kind == "parquet" else None
    return Shard(0, called, kind, url, stat.size, fingerprint, rows, etag=stat.etag)


def _inside(word: str, names: Sequence[str]) -> list[str]:
    """The shards directly under a prefix: tars, or else Parquet files, as in a folder."""
    shown = [name for name in names if not PurePosixPath(name).name.startswith(".")]
    found = next((found for suffix in KINDS if (found := [n for n in shown if _suffix(n) == suffix])), [])
    loose = [name for name in shown if _suffix(name).lstrip(".") in IMAGE_SUFFIXES]
    if loose and found:
        what = f"'{word}' holds shards and loose images ('{PurePosixPath(min(loose)).name}')"
        raise ConfigError.one(_WHERE, what, f"name what you mean: {word}*{_suffix(found[0])}")
    if loose:
        raise ConfigError.one(
            _WHERE,
            f"'{word}' holds loose images ('{PurePosixPath(min(loose)).name}'), each of which would be a request",
            _PACK,
        )
    if not found:
        raise ConfigError.one(_WHERE, f"'{word}' holds no .tar and no .parquet object", _PACK)
    return found


def _matching(pattern: str, place: str) -> list[str]:
    """Names that a glob fits; an object whose very name it is counts alone, as a file does."""
    folders = pattern.split("/")
    fixed = next(i for i, folder in enumerate(folders) if has_magic(folder))
    deep = fixed < len(folders) - 1
    names = bucket(place, _WHERE).find("/".join(folders[:fixed]), deep=deep)
    found = [pattern] if pattern in names else [name for name in names if _fits(name.split("/"), folders)]
    if not found:
        raise ConfigError.one(_WHERE, f"'{place}/{pattern}' matches nothing")
    return found


def _fits(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a name fits, folder by folder; `**` stands for any number of them, hidden ones want their dot."""
    if not pattern or not name:
        return not pattern and not name
    hidden = name[0].startswith(".") and not pattern[0].startswith(".")
    if pattern[0] == "**" and len(pattern) > 1:
        return _fits(name, pattern[1:]) or (not hidden and _fits(name[1:], pattern))
    return not hidden and fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
