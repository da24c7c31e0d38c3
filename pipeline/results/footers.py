"""Counts rows and failures of parts from their footers, reading as few rows as possible.

Only the footer of each part is read. If its statistics show that rows failed, a few columns are read, too. Damaged
parts are reported and do not stop the scan.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import first_line
from pipeline.storage.base import Store
from pipeline.storage.parts import Footer
from schemas.explanation import SHARD_STAGE

_BATCH = 32
"""Files opened as one dataset."""
_READERS = 16


@dataclass(frozen=True)
class PartStatistics:
    """Counts of one file of rows.

    Attributes:
        footer: the part's footer; None in files of a merged copy.
        rows: rows without an error, which are explanations.
        failures: number of rows with an error, by `stage/code`.
        with_failures: number of images and shards with such a row.
        damages: those of them that report damage to a shard, not an image.
        unexplained: number of images without an explanation.
        failed_maps: number of rows in which a method failed, by method.
        constant_maps: number of constant maps, by method.
    """

    footer: Footer | None
    rows: int
    failures: Counter[str]
    with_failures: int = 0
    damages: int = 0
    unexplained: int = 0
    failed_maps: Counter[str] = field(default_factory=Counter)
    constant_maps: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class ScanResult:
    """The result of a scan.

    Attributes:
        statistics: of readable files, by name.
        damaged: the error of each file that cannot be read, by name.
        skipped: number of files not scanned because time ran out.
    """

    statistics: dict[str, PartStatistics] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    skipped: int = 0


def scan(store: Store, names: Sequence[str], seconds: float | None = None) -> ScanResult:
    """Scan files in the given order, for at most `seconds` (None: no limit); missing files are ignored."""
    until = None if seconds is None else time.monotonic() + seconds
    result, remaining, scanned = ScanResult(), iter(names), 0
    with ThreadPoolExecutor(_READERS) as readers:
        while (until is None or time.monotonic() < until) and (
            batches := [batch for _ in range(_READERS) if (batch := tuple(islice(remaining, _BATCH)))]
        ):
            for batch_result in readers.map(lambda batch: dict(_scan_batch(store, batch)), batches):
                result.statistics.update(
                    {name: one for name, one in batch_result.items() if isinstance(one, PartStatistics)}
                )
                result.damaged.update({name: one for name, one in batch_result.items() if isinstance(one, str)})
            scanned += sum(map(len, batches))
    return ScanResult(result.statistics, result.damaged, len(names) - scanned)


def _scan_batch(store: Store, names: Sequence[str]) -> Iterator[tuple[str, PartStatistics | str]]:
    """Scan a batch of files; if one cannot be read, scan each file by itself."""
    try:
        fragments = list(store.dataset(names).get_fragments())
    except FileNotFoundError:
        fragments = []
    except (pa.ArrowException, OSError) as error:
        if len(names) == 1:
            yield names[0], first_line(error)
            return
        fragments = []
    if len(fragments) == len(names):
        yield from _scan_each(names, fragments)
    elif len(names) > 1:  # a dataset takes its schema from the first file, which may be the bad one
        for name in names:
            yield from _scan_batch(store, [name])


def _scan_each(names: Sequence[str], fragments: Sequence[ds.Fragment]) -> Iterator[tuple[str, PartStatistics | str]]:
    for name, fragment in zip(names, fragments, strict=True):
        try:
            yield name, _part_statistics(fragment)
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError, ValueError) as error:
            yield name, first_line(error)


def _part_statistics(fragment: ds.Fragment) -> PartStatistics:
    metadata = fragment.metadata
    pairs = metadata.metadata or {}
    footer = Footer.from_metadata(pairs) if any(key.startswith(b"camatlas.") for key in pairs) else None
    counted = (
        _count_rows(fragment, footer)
        if _may_have_failed(metadata)
        else PartStatistics(footer, metadata.num_rows, Counter())
    )
    return replace(counted, constant_maps=_count_constant(fragment)) if _may_be_constant(metadata) else counted


def _may_have_failed(metadata: pq.FileMetaData) -> bool:
    """Return whether any row may have an error, judging by the column statistics of the file."""
    return any(
        column is None or not column.has_null_count or column.null_count < rows
        for rows, column in _column_statistics(metadata, "error_code")
    )


def _may_be_constant(metadata: pq.FileMetaData) -> bool:
    """Return whether any map may be constant, judging by the column statistics of the file."""
    return any(
        column is None or (column.max if column.has_min_max else column.null_count < rows)
        for rows, column in _column_statistics(metadata, "degenerate")
    )


def _column_statistics(metadata: pq.FileMetaData, name: str) -> Iterator[tuple[int, pq.Statistics | None]]:
    """Yield the number of rows and the statistics of one column for each row group."""
    column = metadata.schema.names.index(name)
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        yield group.num_rows, group.column(column).statistics


def _count_constant(fragment: ds.Fragment) -> Counter[str]:
    """Count the constant maps of each method by reading two small columns."""
    rows = fragment.to_table(columns=["method"], filter=ds.field("degenerate"))
    return Counter(rows["method"].to_pylist())


def _count_rows(fragment: ds.Fragment, footer: Footer | None) -> PartStatistics:
    """Count failures by reading the columns that identify rows and errors."""
    columns = ["shard", "image_key", "method", "error_stage", "error_code"]
    rows = fragment.to_table(columns=columns).to_pylist()
    failed = [row for row in rows if row["error_code"] is not None]
    failed_keys = {(row["shard"], row["image_key"]) for row in failed}
    images = {(row["shard"], row["image_key"]) for row in failed if row["error_stage"] != SHARD_STAGE}
    explained = {(row["shard"], row["image_key"]) for row in rows if row["error_code"] is None}
    codes = Counter(f"{row['error_stage']}/{row['error_code']}" for row in failed)
    damages = len(failed_keys - images)
    failed_maps = Counter(row["method"] for row in failed if row["method"] is not None)
    unexplained = len(images - explained)
    return PartStatistics(footer, len(rows) - len(failed), codes, len(failed_keys), damages, unexplained, failed_maps)
