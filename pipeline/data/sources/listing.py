"""From the words of a run file to the list of shards: braces, globs, folders, prefixes, tars and Parquet files."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from braceexpand import braceexpand

from pipeline.data.sources.buckets import look, urls_of
from pipeline.data.sources.fingerprint import KINDS, digest, edges_digest, parquet_footer
from pipeline.data.sources.folder import FILES_PER_SHARD, list_images
from pipeline.data.sources.objects import is_url
from pipeline.data.sources.parquet_sandbox import Count, ParquetSandbox
from pipeline.data.sources.shards import Shard, clean_text
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import ConfigError, Mistake, Mistakes

_WHERE = "data.shards"


def list_shards(specs: str | Iterable[str], only: Collection[str] | None = None) -> list[Shard]:
    """List the shards that `data.shards` names, in order.

    Args:
        specs: paths of tars, Parquet files or folders, or URLs (`s3://`, `gs://`, `az://`) of tars, Parquet files or
            prefixes that end in `/`; braces (`{000..049}`) and globs are expanded.
        only: names of shards; others in object stores are left out without a request for them.

    Raises:
        ConfigError: something matches nothing, is unreadable, of an unknown kind, or named twice.
        StoreError: an object store cannot be reached.
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
    names = dict(zip(paths, _short_names(paths), strict=True))
    wanted = [path for path, name in names.items() if not is_url(path) or only is None or name in only]
    shards: list[Shard] = []
    with closing(ParquetSandbox()) as sandbox:
        far: dict[str, Shard] = {}
        with mistakes.collecting():
            far = look({path: names[path] for path in wanted if is_url(path)}, sandbox.count)
        for path in wanted:
            with mistakes.collecting():
                opened = [far[path]] if path in far else [] if is_url(path) else _open(path, names[path], sandbox.count)
                shards.extend([replace(shard, ordinal=len(shards) + i) for i, shard in enumerate(opened)])
    mistakes.raise_if_any()
    return shards


def _expand(spec: str) -> list[str]:
    try:
        words = list(braceexpand(spec))
    except ValueError:
        raise ConfigError.one(_WHERE, f"'{spec}' has unbalanced braces") from None
    if is_url(spec):
        return [url for word in words for url in urls_of(word)]
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
        for suffix in KINDS:
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


def _open(place: str, name: str, count: Count) -> list[Shard]:
    path = Path(place)
    try:
        if path.is_dir():
            return _folder_shards(path, name)
        kind = KINDS.get(path.suffix.lower())
        if kind is None:
            raise ConfigError.one(_WHERE, f"'{path}' is neither a folder nor a .tar nor a .parquet file")
        size = path.stat().st_size
        with path.open("rb") as file:
            fingerprint = edges_digest(file, size)
            rows = count(parquet_footer(file, size)) if kind == "parquet" else None
        return [Shard(0, name, kind, str(path), size, fingerprint, rows)]
    except OSError as error:
        raise ConfigError.one(_WHERE, f"cannot read '{path}': {error.strerror}") from None


def _folder_shards(folder: Path, name: str) -> list[Shard]:
    members = list_images(folder)
    if not members:
        raise ConfigError.one(_WHERE, f"folder '{folder}' holds no image, tar or Parquet file")
    shards: list[Shard] = []
    for start in range(0, len(members), FILES_PER_SHARD):
        part = tuple(members[start : start + FILES_PER_SHARD])
        sizes = [Path(folder, member).stat().st_size for member in part]
        listing = digest(repr(list(zip(part, sizes, strict=True))).encode("utf-8", "surrogatepass"))
        index = len(shards)
        shards.append(
            Shard(index, f"{name}[{index}]", "folder", str(folder), sum(sizes), listing, len(part), members=part)
        )
    return shards


def _short_names(paths: list[str]) -> list[str]:
    """Base names where they tell the shards apart, else paths below the common folder."""
    places = [Path(f"/{path.replace('://', '/')}" if is_url(path) else path) for path in paths]
    bases = [clean_text(place.name) for place in places]
    if len(set(bases)) == len(bases):
        return bases
    top = os.path.commonpath([str(place.parent) for place in places])
    return [clean_text(place.relative_to(top).as_posix()) for place in places]
