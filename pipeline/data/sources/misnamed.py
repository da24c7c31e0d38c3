"""Recognises shards that are not what their names say, by their first bytes, before any work starts."""

import io

from pipeline.data.sources.gzip_stream import is_gzip_name
from pipeline.data.sources.shards import ShardKind
from pipeline.data.sources.tar_members import names_in
from pipeline.errors import Mistake

_POINTER = b"version https://git-lfs.github.com/spec/"
_MAGIC = {
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet file",
    b"7z\xbc\xaf": "a 7z archive",
}
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_USTAR = slice(257, 262)


def misnamed(location: str, kind: ShardKind, head: bytes) -> Mistake | None:
    """Return what a shard is if it is not what its name says; None if nothing is known against it.

    Args:
        location: its path or URL.
        kind: the kind that its name says.
        head: its first bytes, 64 KiB or all.
    """
    if head.startswith(_POINTER):
        return _mistake(location, "is a git-lfs pointer, not the file itself", "fetch it: git lfs pull")
    if kind != "tar":
        return None
    compressed = is_gzip_name(location)
    if compressed and head[_USTAR] == b"ustar":
        return _mistake(location, "is a tar that is not compressed", "rename it to end in .tar")
    found = next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)
    if found is not None and not (compressed and found == "gzip data"):
        hint = "rename it to end in .tar.gz" if found == "gzip data" else "unpack it, or write it again as a tar"
        return _mistake(location, f"is {found}, not a tar", hint)
    return None if compressed else _nested(location, head)


def _nested(location: str, head: bytes) -> Mistake | None:
    names = list(names_in(io.BytesIO(head)))
    if not names or not all(name.lower().endswith(_ARCHIVES) for name in names):
        return None
    return _mistake(
        location, f"holds archives ('{names[0]}'), not images", "unpack it, and name what is in it: data.shards: DIR"
    )


def _mistake(location: str, what: str, hint: str) -> Mistake:
    return Mistake("data.shards", f"'{location}' {what}", hint)
