"""Shards in object stores: lists the objects that a URL names, and inspects each of them before it is read.

Costs: one list request per 1,000 objects below a prefix or glob; then for each shard one HEAD and two ranged GETs
(one if it has at most 64 KiB, none if it is empty), and more only if a Parquet footer is larger than 64 KiB.
"""

import io
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipeline.data.sources.fingerprint import EDGE_BYTES, KINDS, edges_digest, kind_of, parquet_footer
from pipeline.data.sources.gzip_stream import is_gzip_name
from pipeline.data.sources.hive import partitioned
from pipeline.data.sources.misnamed import misnamed
from pipeline.data.sources.objects import ShardFile, bucket, split_url
from pipeline.data.sources.parquet_sandbox import Describe
from pipeline.data.sources.shards import Shard
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import ConfigError, Mistake, Mistakes

if TYPE_CHECKING:
    from pipeline.storage.object_store import ObjectStore

_PARALLEL = 32
"""Number of shards that are inspected in parallel."""
_WHERE = "data.shards"
_MAX_NAMED = 20
_QUERY = re.compile(r"\?[^/]*=")
_PACK = "pack loose images on a disk with camatlas pack FOLDER DEST, then copy the shards to the store"


def urls_of(url: str) -> list[str]:
    """List the shards that one URL names: an object, a prefix that ends in `/`, or a glob.

    Raises:
        ConfigError: it is not a URL of an object store, matches nothing, or names loose images.
        StoreError: the store cannot be reached.
    """
    bucket_url, name = split_url(url)
    if "@" in bucket_url or _QUERY.search(name):
        raise ConfigError.one(
            _WHERE, "credentials and queries do not belong in a URL", "put credentials in the environment"
        )
    if has_magic(name):
        names = _matching_names(name, bucket_url)
    elif not name or name.endswith("/"):
        store, folder = bucket(bucket_url, _WHERE), name.rstrip("/")
        direct = store.find(folder, deep=False)
        below = folder + "/" if folder else ""
        hive = [] if direct else partitioned(found for found in store.find(folder, deep=True))
        names = [found for found in hive if "=" in found.removeprefix(below).partition("/")[0]]
        names = names or _shards_under(url, direct)
        if all(map(is_gzip_name, names)):  # they may be what a folder of images came in
            _refuse_loose(url, [found for found in store.find(folder, deep=True) if found not in direct], names)
    else:
        names = [name]
    return [f"{bucket_url}/{name}" for name in names]


def inspect_shards(names: Mapping[str, str], describe: Describe) -> dict[str, Shard]:
    """Find size, fingerprint and row count of each shard, many in parallel.

    Args:
        names: names of the shards in the run, by URL.
        describe: returns the number of rows and the schema of a Parquet file, given its footer.

    Returns:
        The shards by URL; their ordinals are not set yet.

    Raises:
        ConfigError: shards are missing (the message names up to 20) or of an unknown kind.
        StoreError: the store cannot be reached.
    """
    unknown = [url for url in names if kind_of(url) is None]
    if unknown:
        hint = f"a prefix ends in /; {_PACK}"
        raise ConfigError(
            Mistake(_WHERE, f"'{url}' is neither a .tar, .tar.gz nor .parquet object", hint) for url in unknown
        )
    stores = {bucket_url: bucket(bucket_url, _WHERE) for bucket_url in sorted({split_url(url)[0] for url in names})}
    mistakes = Mistakes()

    def inspected(named: tuple[str, str]) -> Shard | None:
        with mistakes.collecting():
            return _shard(stores, describe, named)
        return None

    with ThreadPoolExecutor(_PARALLEL) as pool:
        found = dict(zip(names, pool.map(inspected, names.items()), strict=True))
    mistakes.raise_if_any()
    missing = [url for url, shard in found.items() if shard is None]
    if missing:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        raise ConfigError.one(_WHERE, f"no object {', '.join(missing[:_MAX_NAMED])}{more}")
    return {url: shard for url, shard in found.items() if shard is not None}


def _shard(stores: Mapping[str, "ObjectStore"], describe: Describe, named: tuple[str, str]) -> Shard | None:
    """Inspect one shard; return None if it is missing."""
    url, shard_name = named
    bucket_url, name = split_url(url)
    try:
        stat = stores[bucket_url].stat(name)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError.one(_WHERE, f"'{url}' is not a valid object name: {error}") from None
    file = io.BufferedReader(ShardFile(stores[bucket_url], name, stat, EDGE_BYTES))
    kind = kind_of(url)
    assert kind is not None
    if mistake := misnamed(url, kind, file.read(EDGE_BYTES)):
        raise ConfigError([mistake])
    if kind == "arrow":  # the names of its classes and the order of its rows lie in other files of the folder
        hint = "copy the folder that save_to_disk wrote to a disk, or write Parquet"
        raise ConfigError.one(_WHERE, f"'{url}' is an Arrow file, which is read from a disk alone", hint)
    file.seek(0)
    fingerprint = edges_digest(file, stat.size)
    rows, table = describe(parquet_footer(file, stat.size), "") if kind == "parquet" else (None, None)
    return Shard(0, shard_name, kind, url, stat.size, fingerprint, rows, table=table, etag=stat.etag)


def _shards_under(url: str, names: Sequence[str]) -> list[str]:
    """Return the shards directly under a prefix: tars, else Parquet files, as in a folder."""
    shown = [name for name in names if not PurePosixPath(name).name.startswith(".")]
    found = next((found for of_kind in KINDS if (found := [n for n in shown if n.lower().endswith(of_kind)])), [])
    loose = [name for name in shown if _suffix(name).lstrip(".") in IMAGE_SUFFIXES]
    _refuse_loose(url, shown, found)
    if loose:
        raise ConfigError.one(
            _WHERE,
            f"'{url}' contains loose images ('{PurePosixPath(min(loose)).name}'), each of which would need a request",
            _PACK,
        )
    if not found:
        raise ConfigError.one(_WHERE, f"'{url}' contains no .tar and no .parquet object", _PACK)
    return found


def _refuse_loose(url: str, names: Sequence[str], shards: Sequence[str]) -> None:
    """Raise ConfigError if loose images lie beside shards."""
    loose = [name for name in names if _suffix(name).lstrip(".") in IMAGE_SUFFIXES]
    if loose and shards:
        what = f"'{url}' contains both shards and loose images ('{PurePosixPath(min(loose)).name}')"
        raise ConfigError.one(_WHERE, what, f"name the shards: {url}*{_suffix(shards[0])}")


def _matching_names(pattern: str, bucket_url: str) -> list[str]:
    """Return the names that match a glob; an object with exactly this name is the only match, as for files."""
    folders = pattern.split("/")
    fixed = next(i for i, folder in enumerate(folders) if has_magic(folder))
    deep = fixed < len(folders) - 1
    names = bucket(bucket_url, _WHERE).find("/".join(folders[:fixed]), deep=deep)
    found = [pattern] if pattern in names else [name for name in names if _matches(name.split("/"), folders)]
    if not found:
        raise ConfigError.one(_WHERE, f"'{bucket_url}/{pattern}' matches nothing")
    return found


def _matches(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a name matches folder by folder; `**` is any number of folders, hidden ones need a dot."""
    if not pattern or not name:
        return not pattern and not name
    hidden = name[0].startswith(".") and not pattern[0].startswith(".")
    if pattern[0] == "**" and len(pattern) > 1:
        return _matches(name, pattern[1:]) or (not hidden and _matches(name[1:], pattern))
    return not hidden and fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
