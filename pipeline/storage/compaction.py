"""Compaction: writes a sorted, merged copy of a run's parts, so that looking up an image reads a few thousand rows.

The parts are kept and remain authoritative. `pipeline.storage.merged` defines which files readers use. Rows are sorted
by image key first, since images are looked up by key; the key ranges of two files share at most one key.
Memory use does not depend on the size of the run:

1. Scan the parts: count rows and bytes, sample image keys, and divide the keys into ranges of about one file each.
2. Read one part at a time and append its rows to the file of their range in a temporary folder (`TMPDIR`), which needs
   room for the whole run.
3. Sort one range at a time and publish it under a unique name.
4. Publish the record unless its number is taken. Then remove files with this or a lower number that it does not list.

A crash, or losing the race for a number, leaves files that no record lists; the next compaction removes them. This is
safe: once a record exists, no other record can be published under the number of those files.
"""

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import ConfigError, DamagedRunError, StoreError, first_line
from pipeline.storage.base import Store
from pipeline.storage.checksums import checksummed, open_checksummed
from pipeline.storage.growth import is_cut
from pipeline.storage.merged import (
    COMPACT,
    covered_parts,
    merged_file_problems,
    merged_path,
    newest_record,
    number_of,
    record_path,
    usable_record,
)
from pipeline.storage.parts import read_part
from pipeline.storage.run_folder import PartName, checked_part_names, read_manifest
from pipeline.storage.sorting import SORTED_BY, KeySample, Spill, temporary_folder
from schemas.compaction import CompactionRecord, MergedFile, PartsDigest, ranges
from schemas.explanation import with_source
from schemas.manifest import RunManifest

_WITH_STATISTICS = [*SORTED_BY, "error_code"]
"""Columns with min/max statistics: readers use only these, and others would only make the footer longer."""

_TRIES = 4
"""Attempts to publish a record before giving up, if other compactions keep winning the race."""


@dataclass(frozen=True)
class Limits:
    """Size limits of merged files and their row groups.

    Attributes:
        rows: maximum rows of one merged file.
        size: approximate bytes of one merged file before compression; compaction needs about ten times this in memory.
        group_rows: maximum rows of one row group, the smallest unit that is read.
        group_size: approximate bytes of one row group before compression.
    """

    rows: int = 1_000_000
    size: int = 32 * 2**20
    group_rows: int = 4096
    group_size: int = 4 * 2**20


@dataclass(frozen=True)
class CompactionResult:
    """The result of a compaction.

    Attributes:
        record: lists the files of the merged copy and the parts they cover.
        new: False when an intact copy of all parts already existed.
    """

    record: CompactionRecord
    new: bool


def compact(store: Store, limits: Limits | None = None) -> CompactionResult:
    """Write a merged copy of the existing parts, then remove the older copy.

    Raises:
        ConfigError: there is no run, or no finished chunk.
        DamagedRunError: the manifest or a part is damaged, or a part is missing.
        StoreError: the store fails, or there is no room for temporary files.
    """
    manifest = read_manifest(store)
    run_id = manifest.run_id
    for _ in range(_TRIES):  # if another compaction wins the race, the next attempt finds and returns its copy
        parts = checked_part_names(store)
        if not parts:
            raise ConfigError.one("RUN", f"'{store.url}' holds no finished chunk yet", "run `camatlas explain` first")
        number = newest_record(store.names(COMPACT))
        record = usable_record(store, run_id)
        if record and _is_complete(store, record, parts):
            _remove_leftovers(store, number, record)
            return CompactionResult(record, new=False)
        if record := _Attempt(store, manifest, number + 1, limits or Limits()).publish(parts):
            return CompactionResult(record, new=True)
    raise StoreError(
        f"{store.url}/{COMPACT}: other compactions took the next number {_TRIES} times, "
        "but no merged copy of all parts was found"
    )


def _is_complete(store: Store, record: CompactionRecord, parts: Sequence[PartName]) -> bool:
    """Return whether a copy covers all parts and its files are intact; reads all of its files."""
    if covered_parts(record, parts) != frozenset(parts):
        return False
    return not any(problem for file in record.files for problem in merged_file_problems(store, file))


def drop(store: Store) -> None:
    """Remove the merged copy: records first, oldest to newest, so that no older record ever becomes the newest one."""
    managed = [name for name in store.names(COMPACT) if number_of(name) is not None]
    for name in sorted(managed, key=lambda name: (not name.startswith("record-"), name)):
        store.delete(merged_path(name))


def _remove_leftovers(store: Store, number: int, record: CompactionRecord) -> None:
    """Remove files of this or a lower number that the record does not list."""
    kept = {record_path(number), *(merged_path(file.name) for file in record.files)}
    for name in store.names(COMPACT):
        written = number_of(name)
        if written is not None and written <= number and merged_path(name) not in kept:
            store.delete(merged_path(name))


class _Attempt:
    """One attempt to publish a merged copy under a given record number."""

    def __init__(self, store: Store, manifest: RunManifest, number: int, limits: Limits) -> None:
        self._store, self._manifest, self._number, self._limits = store, manifest, number, limits
        self._run_id = manifest.run_id
        self._name = uuid.uuid4().hex
        self._files: list[MergedFile] = []

    def publish(self, parts: Sequence[PartName]) -> CompactionRecord | None:
        """Write the merged files, then their record; return None if another compaction published this number first."""
        try:
            record = self._write_copy(parts)
        except StoreError:
            if newest_record(self._store.names(COMPACT)) < self._number:
                raise
            return None  # the winner of the race removed the files of this attempt
        if not self._is_published(record):
            return None
        _remove_leftovers(self._store, self._number, record)
        return record

    def _is_published(self, record: CompactionRecord) -> bool:
        """Publish the record; some network file systems report our own successful write as "name is taken"."""
        path = record_path(self._number)
        return self._store.publish(path, record.to_json()) or usable_record(self._store, self._run_id) == record

    def _write_copy(self, parts: Sequence[PartName]) -> CompactionRecord:
        bounds = _sample_keys(self._store, parts).bounds(self._limits.rows, self._limits.size)
        digest = PartsDigest()
        with temporary_folder() as folder:
            spill = Spill(folder, bounds, held=self._limits.size)
            rows = sum(self._spill_part(part, spill, digest) for part in parts)
            for table in spill.tables():
                self._publish_rows(table)
        assert rows == sum(file.rows for file in self._files), "the merged files do not have as many rows as the parts"
        return CompactionRecord(
            run_id=self._run_id,
            files=tuple(self._files),
            parts=ranges((part.shard, part.chunk) for part in parts),
            parts_sha256=digest.hexdigest(),
        )

    def _spill_part(self, part: PartName, spill: Spill, digest: PartsDigest) -> int:
        """Add the rows of a part to the spill and return their number."""
        with _name_damaged_part(self._store, part):
            data = self._store.read(part.file)
            table, footer = read_part(data)
            for wrong in footer.contradictions(part, self._run_id, self._manifest.earlier_ids):
                raise ValueError(wrong)
            if is_cut(footer, self._manifest):
                raise ValueError("an earlier limit cut this chunk, and the same `camatlas explain` completes it")
            spill.add(with_source(table))
        digest.add(part.file, hashlib.sha256(data).hexdigest())
        return int(table.num_rows)

    def _publish_rows(self, table: pa.Table) -> None:
        """Publish the sorted rows of a range as one file, or as several if they exceed the limit of rows."""
        for start in range(0, table.num_rows, self._limits.rows):
            rows = table.slice(start, self._limits.rows)
            data = _encode(rows, self._limits)
            file = MergedFile(
                name=f"{self._number:06d}-{self._name}-{len(self._files):05d}.parquet",
                sha256=hashlib.sha256(data).hexdigest(),
                size=len(data),
                rows=rows.num_rows,
                first_key=rows["image_key"][0].as_py(),
                last_key=rows["image_key"][-1].as_py(),
            )
            self._store.publish(merged_path(file.name), data)
            self._files.append(file)


def _sample_keys(store: Store, parts: Sequence[PartName]) -> KeySample:
    """Sample the image keys of the parts, one part at a time, because an open dataset keeps every footer in memory."""
    sample = KeySample()
    for part in parts:
        with _name_damaged_part(store, part):
            opened = store.dataset([part.file])
            metadata = next(opened.get_fragments()).metadata
            size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
            sample.add(opened.to_table(columns=["image_key"])["image_key"].to_pylist(), size)
    return sample


def _encode(rows: pa.Table, limits: Limits) -> bytes:
    """Encode sorted rows as the bytes of a merged file, and check that they read back unchanged."""
    group = max(1, min(limits.group_rows, limits.group_size * rows.num_rows // max(1, rows.nbytes)))
    dictionary = [name for name in rows.column_names if name != "map"]
    data = checksummed(rows, use_dictionary=dictionary, row_group_size=group, write_statistics=_WITH_STATISTICS)
    assert open_checksummed(data).read().equals(rows), "merged rows do not read back unchanged"
    return data


@contextmanager
def _name_damaged_part(store: Store, part: PartName) -> Iterator[None]:
    """Turn errors of reading a part into a DamagedRunError that names it."""
    try:
        yield
    except (ValueError, OSError) as error:  # pyarrow's exceptions are among them
        raise DamagedRunError(
            f"{store.url}/{part.file} cannot be merged ({first_line(error)}); run `camatlas verify`"
        ) from None
