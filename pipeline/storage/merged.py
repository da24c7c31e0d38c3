"""The merged copy of a run's parts, for reading: its record, and which files hold every row exactly once.

RUN/_compact/record-NNNNNN.json           which merged files stand for which parts; the highest number counts
RUN/_compact/NNNNNN-ATTEMPT-IIIII.parquet   merged rows, of no account until the record of that number names them

The parts stay the commit: where the record cannot be used they are read alone, and those that it does not name, because
the run grew, are read beside the merged files. No glob over RUN/*.parquet and no reader of folders looks into a folder
whose name begins with `_`, so that nobody sees a row twice.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow.dataset as ds

from pipeline.errors import StoreError, first_line
from pipeline.storage.base import Store
from pipeline.storage.run_folder import PartName, part_names, whole_part_names
from pipeline.storage.store import is_unanswered
from schemas.compaction import CompactionRecord, MergedFile, OtherVersionError, PartsDigest

COMPACT = "_compact"
_DROP = "`camatlas verify --repair` drops the copy, `camatlas compact` makes another"
_RECORD = re.compile(r"record-([0-9]{6,})\.json")
_OURS = re.compile(
    r"\.?(?:record-(?P<record>[0-9]{6,})\.json|(?P<file>[0-9]{6,})-[0-9a-f]{32}-[0-9]{5,}\.parquet)"
    r"(?:\.[0-9a-f]{32}\.tmp)?"
)


@dataclass(frozen=True)
class Files:
    """The files of a run that hold each of its rows exactly once.

    Attributes:
        run_id: of the run.
        merged: files of the merged copy; none where there is no copy that can be used.
        beside: parts that they do not stand for.
        parts: all parts; they hold the same rows.
        bounds: first and last image key of each merged file, by its name.
    """

    run_id: str
    merged: tuple[str, ...]
    beside: tuple[PartName, ...]
    parts: tuple[PartName, ...]
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What to read."""
        return (*self.merged, *(part.file for part in self.beside))

    def without_merged(self) -> "Files":
        """The same rows, read from parts alone."""
        return Files(self.run_id, (), self.parts, self.parts)


def whole_files_of(store: Store, run_id: str) -> Files:
    """List the files to answer questions from: those of every part that was ever published.

    Raises:
        DamagedRunError: a part has gone, its receipt is still there; without its rows answers would be wrong.
    """
    return _files(store, run_id, tuple(whole_part_names(store)))


def files_of(store: Store, run_id: str) -> Files:
    """List the files to read what there is of a run."""
    return _files(store, run_id, tuple(part_names(store)))


def _files(store: Store, run_id: str, parts: tuple[PartName, ...]) -> Files:
    record = usable_record(store, run_id)
    covered = covered_parts(record, parts) if record else None
    if record is None or covered is None:
        return Files(run_id, (), parts, parts)
    beside = tuple(part for part in parts if part not in covered)
    bounds = {file.name: (file.first_key, file.last_key) for file in record.files}
    return Files(run_id, tuple(map(merged_path, bounds)), beside, parts, bounds)


def narrowed(opened: ds.Dataset, files: Files) -> ds.Dataset:
    """Tell a dataset between which keys its merged files lie: to find one image it then opens one of them."""
    if not files.merged:
        return opened
    fragments = [_bounded(fragment, files.bounds) for fragment in opened.get_fragments()]
    return type(opened)(fragments, opened.schema, opened.format, opened.filesystem)


def _bounded(fragment: ds.Fragment, bounds: Mapping[str, tuple[str, str]]) -> ds.Fragment:
    name = fragment.path.rpartition("/")[2]
    if name not in bounds:
        return fragment
    (first, last), key = bounds[name], ds.field("image_key")
    return fragment.format.make_fragment(fragment.path, fragment.filesystem, (key >= first) & (key <= last))


def is_lost(store: Store, files: Files) -> bool:
    """Tell whether a merged file has gone since they were listed: another compaction replaced it."""
    return bool(files.merged) and not {merged_path(name) for name in store.names(COMPACT)}.issuperset(files.merged)


def usable_record(store: Store, run_id: str) -> CompactionRecord | None:
    """Read the newest record; None when there is none that can be trusted, or a file that it names is gone."""
    names = store.names(COMPACT)
    number = newest_record(names)
    if not number:
        return None
    try:
        record = CompactionRecord.from_json(store.read(record_path(number)))
    except (FileNotFoundError, ValueError):
        return None
    there = {file.name for file in record.files} <= set(names)
    return record if there and record.run_id == run_id else None


def check_merged(store: Store, run_id: str, digests: Mapping[PartName, str], notes: list[str]) -> Iterator[str]:
    """Say what is wrong with the merged copy, beginning with the file.

    Args:
        store: where the run lies.
        run_id: to which the copy must belong.
        digests: sha256 of every part that could be read.
        notes: gets a sentence about a copy that is none of ours to judge.
    """
    number = newest_record(store.names(COMPACT))
    if not number:
        return
    try:
        record = CompactionRecord.from_json(store.read(record_path(number)))
    except OtherVersionError as error:
        notes.append(f"{record_path(number)}: not read, nor checked: {error}")
        return
    except (ValueError, FileNotFoundError, StoreError) as error:
        if is_unanswered(error):
            raise
        yield f"{record_path(number)}: not a record ({first_line(error)}); {_DROP}"
        return
    if record.run_id != run_id:
        yield f"{record_path(number)}: belongs to run {record.run_id}, not {run_id}; {_DROP}"
    elif not _stands_for(record, digests):
        yield f"{record_path(number)}: parts that it stands for are gone or changed; {_DROP}"
    yield from (problem for file in record.files for problem in changed(store, file))


def _stands_for(record: CompactionRecord, digests: Mapping[PartName, str]) -> bool:
    covered, digest = covered_parts(record, digests), PartsDigest()
    for part in sorted(covered or ()):
        digest.add(part.file, digests[part])
    return covered is not None and digest.hexdigest() == record.parts_sha256


def changed(store: Store, file: MergedFile) -> Iterator[str]:
    """Say what is wrong with a merged file, all of which is read; nothing where it is as it was published."""
    path = merged_path(file.name)
    try:
        data = store.read(path)
    except (FileNotFoundError, StoreError) as error:
        if is_unanswered(error):
            raise
        yield f"{path}: {first_line(error)}; {_DROP}"
        return
    if (len(data), hashlib.sha256(data).hexdigest()) != (file.size, file.sha256):
        yield f"{path}: not the bytes that were published, sha256 or size differs; {_DROP}"


def covered_parts(record: CompactionRecord, listed: Iterable[PartName]) -> frozenset[PartName] | None:
    """The parts that a record stands for; None when one of them is not there any more."""
    there = frozenset(listed)
    if record.parts_count > len(there):
        return None
    covered = frozenset(PartName(*chunk) for chunk in record.chunks())
    return covered if covered <= there else None


def newest_record(names: Iterable[str]) -> int:
    """The highest number of a record among names of the folder; 0 when there is none."""
    return max((int(match[1]) for name in names if (match := _RECORD.fullmatch(name))), default=0)


def number_of(name: str) -> int | None:
    """The number under which a file of ours was written, unfinished ones too; None for what is not ours."""
    match = _OURS.fullmatch(name)
    return int(match["record"] or match["file"]) if match else None


def record_path(number: int) -> str:
    """Path of a record within the run folder."""
    return merged_path(f"record-{number:06d}.json")


def merged_path(name: str) -> str:
    """Path of a file of the copy within the run folder."""
    return f"{COMPACT}/{name}"
