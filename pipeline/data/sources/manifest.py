"""Manifests: lists of images anywhere, with their labels, boxes and further columns.

The images of a manifest are listed before the run, in its order, and become shards of at most 1,024 images. Only the
images of one shard travel to the task that reads it.

The key of an image is its path below the root. If every path is absolute or a URL, it is the place below the deepest
folder of all images. So the same images have the same keys in a manifest, in a folder, and on another machine.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipeline.data.sources.annotated import annotated
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.box_formats import FormatCheck
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.fingerprint import digest
from pipeline.data.sources.manifest_columns import Roles, roles_of
from pipeline.data.sources.manifest_places import Places, common_folder, is_placed
from pipeline.data.sources.manifest_rows import Rows
from pipeline.data.sources.manifest_table import WHERE, ManifestTable, Record, open_table
from pipeline.data.sources.objects import bucket, is_url, split_url
from pipeline.data.sources.shards import Entry, Extent, Failure, Item, Sample, Shard, clean_text
from pipeline.data.sources.tar_members import MAX_MEMBER_BYTES
from pipeline.data.sources.wrong_rows import WrongRowError
from pipeline.errors import ConfigError, StoreError
from pipeline.settings.data import DataConfig
from pipeline.storage.base import Stat

if TYPE_CHECKING:
    from pipeline.storage.object_store import ObjectStore

IMAGES_PER_SHARD = 1024


def list_manifest(data: DataConfig) -> list[Shard]:
    """List the images of `data.manifest` as shards.

    Raises:
        ConfigError: the manifest cannot be read, has no known columns, or has rows that are wrong or contradict each
            other (five of them are named); or none of its images is there.
        StoreError: an object store cannot be reached.
    """
    location = str(data.manifest)
    places, rows = Places(data.root or _folder_of(location), WHERE), Rows(location, WHERE)
    with closing(open_table(location, data.columns.header)) as table:
        roles = roles_of(location, table.names, data)
        classes = load_classes(data.classes if roles.other_labels else None)
        placed = _read_rows(table, roles, places, rows, classes)
    rows.raise_if_wrong()
    _check_boxes(list(rows.entries.values()), roles)
    entries = _with_sizes(list(rows.entries.values()), places)
    root = common_folder([entry.location for entry in entries]) if placed else f"{places.root.rstrip('/')}/"
    _refuse_if_all_are_missing(location, entries, places)
    return _shards(location, [replace(entry, key=entry.key or _key(entry, root)) for entry in entries])


def _read_rows(table: ManifestTable, roles: Roles, places: Places, rows: Rows, classes: ClassTable) -> bool:
    """Collect the images of all rows; return whether every path is absolute or a URL."""
    placed = True
    for number, record in table.rows:
        with rows.collecting(number):
            if isinstance(record, WrongRowError):
                raise record
            roles.check_labels(record, classes)
            entry = _entry(record, roles, places)
            placed = placed and is_placed(str(record[roles.path]))
            rows.add(entry)
    return placed


def manifest_counts(shards: Iterable[Shard]) -> dict[str, int]:
    """Count the images of a manifest: all, missing ones, and those with a label or with boxes, for their account."""
    counts: Counter[str] = Counter(images=0, missing=0, labelled=0, boxed=0)
    for entry in (entry for shard in shards for entry in shard.entries):
        said = entry.said
        counts["images"] += 1
        counts["missing"] += entry.size is None
        counts["labelled"] += said.label is not None or bool(said.labels)
        counts["boxed"] += bool(said.boxes_xyxy)
    return dict(counts)


def read_manifest(shard: Shard, annotations: Annotations) -> Iterator[Item]:
    """Read the images of one shard of a manifest."""
    stores = _Stores()
    for entry in shard.entries:
        data = _read(entry, shard, stores)
        if isinstance(data, Failure):
            yield replace(data, metadata=entry.said.metadata)
            continue
        item = annotated(entry.key, shard, data, {}, annotations, entry.said)
        yield replace(item, extent=Extent(0, len(data)))


def list_entries(shard: Shard) -> Iterator[Item]:
    """Stream the keys of one shard of a manifest as samples without content."""
    return (Sample(entry.key, shard.name, b"", None, None) for entry in shard.entries)


class _Stores:
    """The buckets of a shard's images; each is opened once."""

    def __init__(self) -> None:
        self._open: dict[str, ObjectStore] = {}

    def read(self, entry: Entry) -> bytes:
        """Read an object, which must be the one that was listed.

        Raises:
            StoreError: it cannot be read, or was replaced or deleted.
        """
        url, name = split_url(entry.location)
        if url not in self._open:
            self._open[url] = bucket(url, WHERE)
        try:
            return self._open[url].piece(name, 0, entry.size, entry.etag) if entry.size else b""
        except FileNotFoundError:
            raise StoreError(
                f"{entry.location} existed when the run began and is gone. Finished chunks are kept. Restore it and "
                "run the same command again."
            ) from None


def _read(entry: Entry, shard: Shard, stores: _Stores) -> bytes | Failure:
    if entry.size is None:
        return Failure(entry.key, shard.name, "read", "missing", f"there is no {clean_text(entry.location)}")
    if entry.size > MAX_MEMBER_BYTES:
        return Failure(entry.key, shard.name, "read", "too_large", f"{entry.size} bytes")
    if is_url(entry.location):
        return stores.read(entry)
    try:
        found = Path(entry.location).stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_MEMBER_BYTES:
            return Failure(entry.key, shard.name, "read", "unreadable", "it was a file of another size when listed")
        return Path(entry.location).read_bytes()
    except FileNotFoundError:
        return Failure(entry.key, shard.name, "read", "missing", f"there is no {clean_text(entry.location)}")
    except OSError as error:
        return Failure(entry.key, shard.name, "read", "unreadable", str(error.strerror))


def _entry(record: Record, roles: Roles, places: Places) -> Entry:
    """Return the image of a row; those in object stores get their size later, all at once.

    Raises:
        WrongRowError, BadAnnotationError: the row names no image, or says something that cannot be read.
    """
    cell = record.get(roles.path)
    location = places.located("" if cell is None else str(cell))
    size = None
    if not is_url(location):
        location, size = places.found(location)
    key = "" if roles.key is None else clean_text(str(record.get(roles.key) or ""))
    if roles.key is not None and not key:
        raise WrongRowError(f"its key, in column '{roles.key}', is empty")
    return Entry(key, location, size, None, roles.said(record))


def _with_sizes(entries: list[Entry], places: Places) -> list[Entry]:
    """Return the images with the sizes and ETags of those in object stores."""
    stats = places.stats([entry.location for entry in entries if is_url(entry.location)])
    return [_measured(entry, stats) if entry.location in stats else entry for entry in entries]


def _measured(entry: Entry, stats: Mapping[str, Stat | None]) -> Entry:
    found = stats[entry.location]
    return entry if found is None else replace(entry, size=found.size, etag=found.etag)


def _key(entry: Entry, root: str) -> str:
    return clean_text(entry.location.removeprefix(root))


def _refuse_if_all_are_missing(location: str, entries: Sequence[Entry], places: Places) -> None:
    if all(entry.size is None for entry in entries):
        tried = [entry.location for entry in entries[:3]]
        root = places.other_root(tried)
        raise ConfigError.one(
            WHERE,
            f"none of the {len(entries):,} images of '{location}' is there: tried {clean_text(', '.join(tried))}",
            f"they are below another folder: data.root: {clean_text(root)}" if root else
            "name the folder that the paths start from in data.root",
        )  # fmt: skip


def _check_boxes(entries: Sequence[Entry], roles: Roles) -> None:
    """Raise ConfigError if the boxes of a manifest cannot have the stated format."""
    check = FormatCheck(roles.order, relative=roles.relative)
    for entry in entries:
        check.add(entry.location.rpartition("/")[2], entry.said.boxes_xyxy or ())
    check.raise_if_contradicted()


def _shards(location: str, entries: list[Entry]) -> list[Shard]:
    name = clean_text(PurePosixPath(location).stem)
    shards: list[Shard] = []
    for start in range(0, len(entries), IMAGES_PER_SHARD):
        part = tuple(entries[start : start + IMAGES_PER_SHARD])
        content = repr([(entry.key, entry.size, entry.etag, entry.said) for entry in part])
        index, size = len(shards), sum(entry.size or 0 for entry in part)
        fingerprint = digest(content.encode("utf-8", "surrogatepass"))
        shards.append(
            Shard(index, f"{name}[{index}]", "manifest", location, size, fingerprint, len(part), entries=part)
        )
    return shards


def _folder_of(location: str) -> str:
    return location.rpartition("/")[0] if is_url(location) else os.path.dirname(os.path.abspath(location))  # noqa: PTH100, PTH120
