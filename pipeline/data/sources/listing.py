"""Lists the shards that `data.shards` names: braces, globs, folders, prefixes, tars and Parquet files."""

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.data.sources.buckets import inspect_shards, urls_of
from pipeline.data.sources.fingerprint import (
    BESIDE_IMAGES,
    EDGE_BYTES,
    KINDS,
    digest,
    edges_digest,
    kind_of,
    parquet_footer,
)
from pipeline.data.sources.folder import FILES_PER_SHARD
from pipeline.data.sources.folder_files import described, find_files
from pipeline.data.sources.hive import partitioned
from pipeline.data.sources.hub import PREFIX, fetched
from pipeline.data.sources.misnamed import misnamed
from pipeline.data.sources.objects import is_url
from pipeline.data.sources.parquet_sandbox import Describe, parquet_sandbox
from pipeline.data.sources.shards import Shard, clean_text
from pipeline.data.sources.splits import of_split
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.data.sources.tar_names import MemberRules
from pipeline.errors import ConfigError, Mistake, Mistakes

_WHERE = "data.shards"


def list_shards(
    specs: str | Iterable[str],
    only: Collection[str] | None = None,
    suffixes: Sequence[str] | None = None,
    split: str | None = None,
    ignore: tuple[str, ...] = (),
) -> list[Shard]:
    """List the shards that `data.shards` names, in order.

    Args:
        specs: paths of tars, Parquet files or folders, or URLs (`s3://`, `gs://`, `az://`) of tars, Parquet files or
            prefixes that end in `/`; braces (`{000..049}`) and globs are expanded.
        only: names of shards to list; others in object stores are left out without a request.
        suffixes: those of the images in folders; None takes every file that is not known to be something else.
        split: the split of folders that have several.
        ignore: patterns of the files of folders that are no images, such as `*.mask.png`.

    Raises:
        ConfigError: a path matches nothing, is unreadable, of an unknown kind, or named twice.
        StoreError: an object store cannot be reached.
    """
    mistakes = Mistakes()
    paths: list[str] = []
    for spec in [specs] if isinstance(specs, str) else specs:
        with mistakes.collecting():
            paths.extend(_expand(spec, IMAGE_SUFFIXES if suffixes is None else suffixes, split))
    mistakes.found.extend(
        Mistake(_WHERE, f"'{path}' is named {count} times") for path, count in Counter(paths).items() if count > 1
    )
    mistakes.raise_if_any()
    names = dict(zip(paths, _short_names(paths), strict=True))
    wanted = [path for path, name in names.items() if not is_url(path) or only is None or name in only]
    shards: list[Shard] = []
    with parquet_sandbox() as sandbox:
        remote: dict[str, Shard] = {}
        with mistakes.collecting():
            remote = inspect_shards({path: names[path] for path in wanted if is_url(path)}, sandbox.describe)
        for path in wanted:
            with mistakes.collecting():
                if is_url(path):
                    found = [remote[path]] if path in remote else []
                else:
                    found = _open(path, names[path], sandbox.describe, suffixes, MemberRules(ignore=ignore))
                shards.extend([replace(shard, ordinal=len(shards) + i) for i, shard in enumerate(found)])
    mistakes.raise_if_any()
    return shards


def shard_at(location: str, name: str) -> Shard:
    """Identify one tar or table again, by the place and the name that it had in a run.

    Raises:
        ConfigError: there is none, or it cannot be read.
        StoreError: its store cannot be reached.
    """
    with parquet_sandbox() as sandbox:
        if is_url(location):
            return inspect_shards({location: name}, sandbox.describe)[location]
        if not Path(location).is_file():
            raise ConfigError.one(_WHERE, f"there is no file '{location}'")
        return _open(location, name, sandbox.describe, None, MemberRules())[0]


def _expand(spec: str, suffixes: Sequence[str], split: str | None) -> list[str]:
    from braceexpand import braceexpand  # here, so that what reads no shards does without it

    try:
        alternatives = list(braceexpand(spec))
    except ValueError:
        raise ConfigError.one(_WHERE, f"'{spec}' has unbalanced braces") from None
    if spec.startswith(PREFIX):
        return [shard for part in fetched(spec, split) for shard in _shards_directly_in(part, suffixes)]
    if is_url(spec):
        return [url for alternative in alternatives for url in urls_of(alternative)]
    try:
        return _existing(spec, alternatives, suffixes, split)
    except OSError as error:
        raise ConfigError.one(_WHERE, f"cannot read '{spec}': {error.strerror}") from None


def _existing(spec: str, alternatives: list[str], suffixes: Sequence[str], split: str | None) -> list[str]:
    paths = [path for alternative in alternatives for path in _matches(alternative)]
    missing = [path for path in paths if not Path(path).exists()]
    if missing or not paths:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ConfigError.one(
            _WHERE, f"'{spec}' matches nothing" + (f"; missing: {shown}" if shown and shown != spec else "")
        )
    return [inner for path in paths for inner in _shards_in(Path(path), suffixes, split)]


def _matches(alternative: str) -> list[str]:
    pattern = os.path.expanduser(alternative)  # noqa: PTH111 - Path.expanduser raises for an unknown user
    if Path(pattern).exists() or not glob.has_magic(pattern):
        return [os.path.abspath(pattern)]  # noqa: PTH100 - resolve() would follow links and change names
    return [os.path.abspath(path) for path in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH100, PTH207


def _shards_in(path: Path, suffixes: Sequence[str], split: str | None) -> list[str]:
    """Return the shards of a folder; a path that is not a folder of shards is returned itself."""
    parts = of_split(path, split) if path.is_dir() else [path]
    return [shard for part in parts for shard in _shards_directly_in(part, suffixes)]


def _shards_directly_in(folder: Path, suffixes: Sequence[str]) -> list[str]:
    if not folder.is_dir():
        return [str(folder)]
    for of_kind in KINDS:
        if shards := sorted(str(entry) for entry in folder.iterdir() if _is_shard(entry, of_kind)):
            if of_kind in BESIDE_IMAGES and find_files(folder).images:
                continue  # the archive that the images came in
            _refuse_loose_images(folder, suffixes)
            return shards
    return partitioned(str(entry) for entry in folder.glob("*=*/**/*.parquet")) or [str(folder)]


def _refuse_loose_images(folder: Path, suffixes: Sequence[str]) -> None:
    of_images = tuple(f".{suffix}" for suffix in suffixes)
    loose = [entry.name for entry in folder.iterdir() if entry.name.lower().endswith(of_images)]
    if loose:
        raise ConfigError.one(
            _WHERE,
            f"'{folder}' contains both shards and loose images ('{min(loose)}')",
            f"name the shards: {folder}/*.tar",
        )


def _is_shard(path: Path, of_kind: tuple[str, ...]) -> bool:
    hidden = path.name.startswith((".", "cache-") if ".arrow" in of_kind else ".")  # the cache of `datasets`
    return path.name.lower().endswith(of_kind) and not hidden and path.is_file()


def _open(
    location: str, name: str, describe: Describe, suffixes: Sequence[str] | None, rules: MemberRules
) -> list[Shard]:
    path = Path(location)
    try:
        if path.is_dir():
            return _folder_shards(path, name, suffixes, rules)
        kind = kind_of(path.name)
        if kind is None:
            raise ConfigError.one(_WHERE, f"'{path}' is neither a folder nor a .tar, .tar.gz, .parquet or .arrow file")
        size = path.stat().st_size
        with path.open("rb") as file:
            if mistake := misnamed(location, kind, file.read(EDGE_BYTES)):
                raise ConfigError([mistake])
            file.seek(0)
            fingerprint = edges_digest(file, size)
            rows, table = None, None
            if kind != "tar":
                rows, table = describe(parquet_footer(file, size), "") if kind == "parquet" else describe(b"", location)
        return [Shard(0, name, kind, str(path), size, fingerprint, rows, table=table)]
    except OSError as error:
        raise ConfigError.one(_WHERE, f"cannot read '{error.filename or path}': {error.strerror}") from None


def _folder_shards(folder: Path, name: str, suffixes: Sequence[str] | None, rules: MemberRules) -> list[Shard]:
    found = find_files(folder, suffixes)
    members = [member for member in found.images if not rules.ignores(member)]
    if not members and suffixes is not None:
        raise ConfigError.one(_WHERE, f"folder '{folder}' contains no file of data.suffixes ({', '.join(suffixes)})")
    if not members:
        raise ConfigError([described(folder, found)])
    shards: list[Shard] = []
    for start in range(0, len(members), FILES_PER_SHARD):
        part = tuple(members[start : start + FILES_PER_SHARD])
        sizes = [_size(Path(folder, member)) for member in part]
        listing = digest(repr(list(zip(part, sizes, strict=True))).encode("utf-8", "surrogatepass"))
        index = len(shards)
        shards.append(
            Shard(index, f"{name}[{index}]", "folder", str(folder), sum(sizes), listing, len(part), members=part)
        )
    return shards


def _size(path: Path) -> int:
    """Return the size of a file; a link without a target has none, and becomes a failure row when it is read."""
    return path.stat().st_size if path.exists() else 0


def _short_names(paths: list[str]) -> list[str]:
    """Return base names if they are unique, else paths below the common folder."""
    locations = [Path(f"/{path.replace('://', '/')}" if is_url(path) else path) for path in paths]
    bases = [clean_text(location.name) for location in locations]
    if len(set(bases)) == len(bases):
        return bases
    top = os.path.commonpath([str(location.parent) for location in locations])
    return [clean_text(location.relative_to(top).as_posix()) for location in locations]
