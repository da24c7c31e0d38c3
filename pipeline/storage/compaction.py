"""Compaction: a merged copy of a run's parts, sorted so that an image is found by reading a few thousand rows.

The parts stay, they are the commit; `pipeline.storage.merged` says how readers tell which files to use. Rows are
sorted by image key first, since images are looked up by key, and the keys of two files overlap by at most one.
Memory is bounded, whatever the size of the run:

1. Look over the parts: rows, bytes, and a sample of their image keys, from which ranges of about one file each are cut.
2. Read part after part and put its rows into the range they belong to, in files of a temporary folder (`TMPDIR`), which
   must have room for the run.
3. Sort range after range and publish it, under a name that nobody else uses.
4. Publish the record, if absent, and remove what has a number up to this one and is not named by it.

A crash, or coming second with a record, leaves files that no record names; whoever looks next removes them. That takes
nothing from others: once a record is there, nobody can publish another one under the number of those files.
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
from pipeline.storage.merged import (
    COMPACT,
    changed,
    covered_parts,
    merged_path,
    newest_record,
    number_of,
    record_path,
    usable_record,
)
from pipeline.storage.parts import read_part
from pipeline.storage.run_folder import PartName, read_manifest, whole_part_names
from pipeline.storage.sorting import SORTED_BY, KeySample, Spill, temporary_folder
from schemas.compaction import CompactionRecord, MergedFile, PartsDigest, ranges

_WITH_STATISTICS = [*SORTED_BY, "error_code"]
"""Columns whose least and greatest values readers use; for the others they would only make the footer longer."""

_TRIES = 4


@dataclass(frozen=True)
class Limits:
    """How large things may grow.

    Attributes:
        rows: in one merged file.
        size: bytes of one merged file before compression, about; memory needed is about ten times as much.
        group_rows: in one row group, the least that is read.
        group_size: bytes of one row group before compression, about.
    """

    rows: int = 1_000_000
    size: int = 32 * 2**20
    group_rows: int = 4096
    group_size: int = 4 * 2**20


@dataclass(frozen=True)
class Compacted:
    """What a compaction came to.

    Attributes:
        record: what the merged copy consists of.
        new: False when a copy of all parts was there already.
    """

    record: CompactionRecord
    new: bool


def compact(store: Store, limits: Limits | None = None) -> Compacted:
    """Write a merged copy of the parts that are there; a copy of fewer parts is removed afterwards.

    Raises:
        ConfigError: there is no run, or no finished chunk.
        DamagedRunError: the manifest or a part is damaged, or a part has gone.
        StoreError: the store refuses, or there is no room for temporary files.
    """
    run_id = read_manifest(store).run_id
    for _ in range(_TRIES):  # where another compaction is first, what it wrote is found the next time
        parts = whole_part_names(store)
        if not parts:
            raise ConfigError.one("RUN", f"'{store.url}' holds no finished chunk yet", "run `camatlas explain` first")
        number = newest_record(store.names(COMPACT))
        record = usable_record(store, run_id)
        if record and _is_whole(store, record, parts):
            _sweep(store, number, record)
            return Compacted(record, new=False)
        if record := _Attempt(store, run_id, number + 1, limits or Limits()).publish(parts):
            return Compacted(record, new=True)
    raise StoreError(f"{store.url}/{COMPACT}: others were first {_TRIES} times, yet no copy of all parts is to be seen")


def _is_whole(store: Store, record: CompactionRecord, parts: Sequence[PartName]) -> bool:
    """Tell whether a copy stands for all parts, and its files are what was published; those are read."""
    if covered_parts(record, parts) != frozenset(parts):
        return False
    return not any(problem for file in record.files for problem in changed(store, file))


def drop(store: Store) -> None:
    """Remove the merged copy: records first, the oldest before the others, so that no older one comes to count."""
    ours = [name for name in store.names(COMPACT) if number_of(name) is not None]
    for name in sorted(ours, key=lambda name: (not name.startswith("record-"), name)):
        store.delete(merged_path(name))


def _sweep(store: Store, number: int, record: CompactionRecord) -> None:
    """Remove what earlier compactions left, and what others wrote under this number, which is taken."""
    kept = {record_path(number), *(merged_path(file.name) for file in record.files)}
    for name in store.names(COMPACT):
        written = number_of(name)
        if written is not None and written <= number and merged_path(name) not in kept:
            store.delete(merged_path(name))


class _Attempt:
    """One try to publish the record of a number."""

    def __init__(self, store: Store, run_id: str, number: int, limits: Limits) -> None:
        self._store, self._run_id, self._number, self._limits = store, run_id, number, limits
        self._name = uuid.uuid4().hex
        self._files: list[MergedFile] = []

    def publish(self, parts: Sequence[PartName]) -> CompactionRecord | None:
        """Write merged files, then their record; None when another compaction was first."""
        try:
            record = self._merged(parts)
        except StoreError:
            if newest_record(self._store.names(COMPACT)) < self._number:
                raise
            return None  # who was first has removed what we were writing
        if not self._is_published(record):
            return None
        _sweep(self._store, self._number, record)
        return record

    def _is_published(self, record: CompactionRecord) -> bool:
        """Publish the record; some file systems say that a name was taken, when it was taken by ourselves."""
        path = record_path(self._number)
        return self._store.publish(path, record.to_json()) or usable_record(self._store, self._run_id) == record

    def _merged(self, parts: Sequence[PartName]) -> CompactionRecord:
        bounds = _survey(self._store, parts).bounds(self._limits.rows, self._limits.size)
        digest = PartsDigest()
        with temporary_folder() as folder:
            spill = Spill(folder, bounds, held=self._limits.size)
            rows = sum(self._spill_part(part, spill, digest) for part in parts)
            for table in spill.tables():
                self._publish_rows(table)
        assert rows == sum(file.rows for file in self._files), "not as many rows came out as went in"
        return CompactionRecord(
            run_id=self._run_id,
            files=tuple(self._files),
            parts=ranges((part.shard, part.chunk) for part in parts),
            parts_sha256=digest.hexdigest(),
        )

    def _spill_part(self, part: PartName, spill: Spill, digest: PartsDigest) -> int:
        """Hand on the rows of a part; gives their number."""
        with _damage(self._store, part):
            data = self._store.read(part.file)
            table, footer = read_part(data)
            if footer.run_id != self._run_id:
                raise ValueError(f"belongs to run {footer.run_id}, not {self._run_id}")
            spill.add(table)
        digest.add(part.file, hashlib.sha256(data).hexdigest())
        return int(table.num_rows)

    def _publish_rows(self, table: pa.Table) -> None:
        """Publish the sorted rows of a range; one file, unless many rows share a few keys."""
        for start in range(0, table.num_rows, self._limits.rows):
            rows = table.slice(start, self._limits.rows)
            data = _encoded(rows, self._limits)
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


def _survey(store: Store, parts: Sequence[PartName]) -> KeySample:
    """Look over the parts one at a time: an open dataset keeps every footer that it has read."""
    sample = KeySample()
    for part in parts:
        with _damage(store, part):
            found = store.dataset([part.file])
            metadata = next(found.get_fragments()).metadata
            size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
            sample.add(found.to_table(columns=["image_key"])["image_key"].to_pylist(), size)
    return sample


def _encoded(rows: pa.Table, limits: Limits) -> bytes:
    """Write sorted rows as the bytes of a merged file, and read them back once to be sure."""
    group = max(1, min(limits.group_rows, limits.group_size * rows.num_rows // max(1, rows.nbytes)))
    dictionary = [name for name in rows.column_names if name != "map"]
    data = checksummed(rows, use_dictionary=dictionary, row_group_size=group, write_statistics=_WITH_STATISTICS)
    assert open_checksummed(data).read().equals(rows), "merged rows do not read back as they were written"
    return data


@contextmanager
def _damage(store: Store, part: PartName) -> Iterator[None]:
    """Name the part that cannot be merged."""
    try:
        yield
    except (ValueError, OSError) as error:  # pyarrow's exceptions are among them
        raise DamagedRunError(
            f"{store.url}/{part.file} cannot be merged ({first_line(error)}); run `camatlas verify`"
        ) from None
