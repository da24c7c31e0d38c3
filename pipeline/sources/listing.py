"""From the words of a run file to the list of shards: braces, globs, folders, tars and Parquet files."""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from braceexpand import braceexpand

from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.sources.folder import FILES_PER_SHARD, list_images
from pipeline.sources.shards import Shard, ShardKind, clean_text
from pipeline.sources.tar import IMAGE_SUFFIXES

_WHERE = "data.shards"
_KINDS: dict[str, ShardKind] = {".tar": "tar", ".parquet": "parquet"}
_EDGE_BYTES = 64 << 10


def list_shards(specs: str | Iterable[str]) -> list[Shard]:
    """List the shards that `data.shards` names, in order.

    Args:
        specs: paths of tars, Parquet files or folders; braces (`{000..049}`) and globs are expanded.

    Raises:
        ConfigError: something matches nothing, is unreadable, of an unknown kind, or named twice.
    """
    mistakes = Mistakes()
    paths: list[str] = []
    for spec in [specs] if isinstance(specs, str) else specs:
        with mistakes.collecting():
            paths.extend(_expand(spec))
    mistakes.found.extend(
        Mistake(_WHERE, f"'{path}' is named {count} times") for path, count in Counter(paths).items() if count > 1
    )
    mistakes.raise_if_any()
    shards: list[Shard] = []
    for path, name in zip(paths, _short_names(paths), strict=True):
        with mistakes.collecting():
            shards.extend(_open(Path(path), name, first=len(shards)))
    mistakes.raise_if_any()
    return shards


def _expand(spec: str) -> list[str]:
    if "://" in spec:
        raise ConfigError.one(_WHERE, f"'{spec}': only local paths are read so far", "copy or mount the shards")
    try:
        words = list(braceexpand(spec))
    except ValueError:
        raise ConfigError.one(_WHERE, f"'{spec}' has unbalanced braces") from None
    try:
        return _found(spec, words)
    except OSError as error:
        raise ConfigError.one(_WHERE, f"cannot read '{spec}': {error.strerror}") from None


def _found(spec: str, words: list[str]) -> list[str]:
    found = [path for word in words for path in _matches(word)]
    missing = [path for path in found if not Path(path).exists()]
    if missing or not found:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ConfigError.one(_WHERE, f"'{spec}' matches nothing" + (f": no {shown}" if shown else ""))
    return [inner for path in found for inner in _inside(Path(path))]


def _matches(word: str) -> list[str]:
    pattern = os.path.expanduser(word)  # noqa: PTH111 - Path's own raises for an unknown user
    if Path(pattern).exists() or not glob.has_magic(pattern):
        return [os.path.abspath(pattern)]  # noqa: PTH100 - resolve() would follow links and change names
    return [os.path.abspath(path) for path in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH100, PTH207


def _inside(path: Path) -> list[str]:
    """A folder of shards stands for its shards; any other path for itself."""
    if path.is_dir():
        for suffix in _KINDS:
            shards = sorted(str(entry) for entry in path.iterdir() if _is_shard(entry, suffix))
            if shards:
                _refuse_loose(path)
                return shards
    return [str(path)]


def _refuse_loose(folder: Path) -> None:
    loose = [entry.name for entry in folder.iterdir() if entry.suffix.lower().lstrip(".") in IMAGE_SUFFIXES]
    if loose:
        raise ConfigError.one(
            _WHERE, f"'{folder}' holds shards and loose images ('{min(loose)}')", f"name what you mean: {folder}/*.tar"
        )


def _is_shard(path: Path, suffix: str) -> bool:
    return path.suffix.lower() == suffix and not path.name.startswith(".") and path.is_file()


def _open(path: Path, name: str, first: int) -> list[Shard]:
    try:
        if path.is_dir():
            return _folder_shards(path, name, first)
        kind = _KINDS.get(path.suffix.lower())
        if kind is None:
            raise ConfigError.one(_WHERE, f"'{path}' is neither a folder nor a .tar nor a .parquet file")
        size = path.stat().st_size
        rows = _parquet_rows(path) if kind == "parquet" else None
        return [Shard(first, name, kind, str(path), size, _edges_digest(path, size), rows)]
    except OSError as error:
        raise ConfigError.one(_WHERE, f"cannot read '{path}': {error.strerror}") from None


def _parquet_rows(path: Path) -> int | None:
    try:
        rows: int = pq.read_metadata(path).num_rows
        return rows
    except (pa.ArrowException, OSError):
        return None  # reading it will tell what is wrong, as a failure row


def _folder_shards(folder: Path, name: str, first: int) -> list[Shard]:
    members = list_images(folder)
    if not members:
        raise ConfigError.one(_WHERE, f"folder '{folder}' holds no image, tar or Parquet file")
    shards: list[Shard] = []
    for start in range(0, len(members), FILES_PER_SHARD):
        part = tuple(members[start : start + FILES_PER_SHARD])
        sizes = [Path(folder, member).stat().st_size for member in part]
        digest = _digest(repr(list(zip(part, sizes, strict=True))).encode("utf-8", "surrogatepass"))
        index = len(shards)
        shards.append(
            Shard(first + index, f"{name}[{index}]", "folder", str(folder), sum(sizes), digest, len(part), members=part)
        )
    return shards


def _edges_digest(path: Path, size: int) -> str:
    """Hash the size, the first and the last 64 KiB: cheap, and it notices a shard written anew."""
    with path.open("rb") as file:
        head = file.read(_EDGE_BYTES)
        file.seek(max(0, size - _EDGE_BYTES))
        return _digest(str(size).encode() + head + file.read(_EDGE_BYTES))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _short_names(paths: list[str]) -> list[str]:
    """Base names where they tell the shards apart, else paths below the common folder."""
    bases = [clean_text(Path(path).name) for path in paths]
    if len(set(bases)) == len(bases):
        return bases
    top = os.path.commonpath([str(Path(path).parent) for path in paths])
    return [clean_text(Path(path).relative_to(top).as_posix()) for path in paths]
