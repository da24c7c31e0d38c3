"""The merged copy of a run's parts: reads its record and selects files that hold every row exactly once.

RUN/_compact/record-NNNNNN.json             lists merged files and the parts they cover; the highest number is valid
RUN/_compact/NNNNNN-ATTEMPT-IIIII.parquet   merged rows; ignored unless the record of that number lists the file

The parts remain authoritative. If the record is unusable, only parts are read. Parts that it does not cover, because
they were added later, are read in addition to the merged files. Globs over RUN/*.parquet and dataset readers skip
folders whose names begin with `_`, so they never see a row twice.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyarrow.dataset as ds

from pipeline.errors import StoreError, first_line
from pipeline.storage.base import Store
from pipeline.storage.run_folder import PartName, checked_part_names, part_names
from pipeline.storage.store import is_unanswered
from schemas.compaction import CompactionRecord, MergedFile, OtherVersionError, PartsDigest
from schemas.explanation import with_source_fields

COMPACT = "_compact"
_REMEDY = "`camatlas verify --repair` removes the merged copy, `camatlas compact` writes a new one"
_RECORD = re.compile(r"record-([0-9]{6,})\.json")
_MANAGED_FILE = re.compile(
    r"\.?(?:record-(?P<record>[0-9]{6,})\.json|(?P<file>[0-9]{6,})-[0-9a-f]{32}-[0-9]{5,}\.parquet)"
    r"(?:\.[0-9a-f]{32}\.tmp)?"
)


@dataclass(frozen=True)
class Files:
    """The files of a run that hold each of its rows exactly once.

    Attributes:
        run_id: id of the run.
        merged: files of the merged copy; empty if there is no usable copy.
        unmerged: parts that the merged copy does not cover.
        parts: all parts; alone they hold every row, too.
        bounds: first and last image key of each merged file, by its name.
        earlier: ids that the run had before its limit was raised; parts may have them.
    """

    run_id: str
    merged: tuple[str, ...]
    unmerged: tuple[PartName, ...]
    parts: tuple[PartName, ...]
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    earlier: frozenset[str] = frozenset()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files to read."""
        return (*self.merged, *(part.file for part in self.unmerged))

    def without_merged(self) -> "Files":
        """Return the files for reading the same rows from parts alone."""
        return Files(self.run_id, (), self.parts, self.parts, earlier=self.earlier)


def checked_files_of(store: Store, run_id: str, earlier: frozenset[str] = frozenset()) -> Files:
    """List the files to read for a query, after checking that every published part still exists.

    Raises:
        DamagedRunError: a part is missing although its receipt exists; query results would lack its rows.
    """
    return replace(_files(store, run_id, tuple(checked_part_names(store))), earlier=earlier)


def files_of(store: Store, run_id: str) -> Files:
    """List the files that hold the existing rows of a run; missing parts are not noticed."""
    return _files(store, run_id, tuple(part_names(store)))


def _files(store: Store, run_id: str, parts: tuple[PartName, ...]) -> Files:
    record = usable_record(store, run_id)
    covered = covered_parts(record, parts) if record else None
    if record is None or covered is None:
        return Files(run_id, (), parts, parts)
    unmerged = tuple(part for part in parts if part not in covered)
    bounds = {file.name: (file.first_key, file.last_key) for file in record.files}
    return Files(run_id, tuple(map(merged_path, bounds)), unmerged, parts, bounds)


def rows_of(opened: ds.Dataset, files: Files) -> ds.Dataset:
    """Complete the dataset of a run's files: columns that earlier versions did not write, and the bounds of keys.

    With the key range of each merged file, finding an image opens only the files that may hold it.
    """
    fragments = [_bounded(fragment, files.bounds) for fragment in opened.get_fragments()]
    return type(opened)(fragments, with_source_fields(opened.schema), opened.format, opened.filesystem)


def _bounded(fragment: ds.Fragment, bounds: Mapping[str, tuple[str, str]]) -> ds.Fragment:
    name = fragment.path.rpartition("/")[2]
    if name not in bounds:
        return fragment
    (first, last), key = bounds[name], ds.field("image_key")
    return fragment.format.make_fragment(fragment.path, fragment.filesystem, (key >= first) & (key <= last))


def is_lost(store: Store, files: Files) -> bool:
    """Return whether a merged file was deleted since these files were listed, because a compaction replaced it."""
    return bool(files.merged) and not {merged_path(name) for name in store.names(COMPACT)}.issuperset(files.merged)


def usable_record(store: Store, run_id: str) -> CompactionRecord | None:
    """Read the newest record; return None if it is missing, invalid, of another run, or lists a missing file."""
    names = store.names(COMPACT)
    number = newest_record(names)
    if not number:
        return None
    try:
        record = CompactionRecord.from_json(store.read(record_path(number)))
    except (FileNotFoundError, ValueError):
        return None
    complete = {file.name for file in record.files} <= set(names)
    return record if complete and record.run_id == run_id else None


def check_merged(store: Store, run_id: str, digests: Mapping[PartName, str], notes: list[str]) -> Iterator[str]:
    """Yield the problems of the merged copy, each beginning with the file name.

    Args:
        store: holds the run.
        run_id: the run that the copy must belong to.
        digests: sha256 of every readable part.
        notes: receives a note if the record has an unknown version and cannot be checked.
    """
    number = newest_record(store.names(COMPACT))
    if not number:
        return
    try:
        record = CompactionRecord.from_json(store.read(record_path(number)))
    except OtherVersionError as error:
        notes.append(f"{record_path(number)}: not checked: {error}")
        return
    except (ValueError, FileNotFoundError, StoreError) as error:
        if is_unanswered(error):
            raise
        yield f"{record_path(number)}: not a valid record ({first_line(error)}); {_REMEDY}"
        return
    if record.run_id != run_id:
        yield f"{record_path(number)}: belongs to run {record.run_id}, not {run_id}; {_REMEDY}"
    elif not _covers_unchanged_parts(record, digests):
        yield f"{record_path(number)}: parts that it covers are missing or changed; {_REMEDY}"
    yield from (problem for file in record.files for problem in merged_file_problems(store, file))


def _covers_unchanged_parts(record: CompactionRecord, digests: Mapping[PartName, str]) -> bool:
    covered, digest = covered_parts(record, digests), PartsDigest()
    for part in sorted(covered or ()):
        digest.add(part.file, digests[part])
    return covered is not None and digest.hexdigest() == record.parts_sha256


def merged_file_problems(store: Store, file: MergedFile) -> Iterator[str]:
    """Yield the problem of a merged file, if any; reads the whole file."""
    path = merged_path(file.name)
    try:
        data = store.read(path)
    except (FileNotFoundError, StoreError) as error:
        if is_unanswered(error):
            raise
        yield f"{path}: {first_line(error)}; {_REMEDY}"
        return
    if (len(data), hashlib.sha256(data).hexdigest()) != (file.size, file.sha256):
        yield f"{path}: changed after it was published, sha256 or size differs; {_REMEDY}"


def covered_parts(record: CompactionRecord, listed: Iterable[PartName]) -> frozenset[PartName] | None:
    """Return the parts that a record covers; None if one of them no longer exists."""
    existing = frozenset(listed)
    if record.parts_count > len(existing):
        return None
    covered = frozenset(PartName(*chunk) for chunk in record.chunks())
    return covered if covered <= existing else None


def newest_record(names: Iterable[str]) -> int:
    """Return the highest record number among file names; 0 if there is no record."""
    return max((int(match[1]) for name in names if (match := _RECORD.fullmatch(name))), default=0)


def number_of(name: str) -> int | None:
    """Return the number in the name of a compaction's file, finished or temporary; None for other files."""
    match = _MANAGED_FILE.fullmatch(name)
    return int(match["record"] or match["file"]) if match else None


def record_path(number: int) -> str:
    """Return the path of a record within the run folder."""
    return merged_path(f"record-{number:06d}.json")


def merged_path(name: str) -> str:
    """Return the path of a merged file or record within the run folder."""
    return f"{COMPACT}/{name}"
