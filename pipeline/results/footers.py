"""What parts say without their rows being read: their footers, and the codes of rows that failed.

Of each part the footer is read; its statistics tell whether any row failed, and only then some columns are read. Damage
is told, and stops nothing.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.errors import first_line
from pipeline.storage.base import Store
from pipeline.storage.parts import Footer
from schemas.explanation import SHARD_STAGE

_BATCH = 32
"""Files that are opened together."""
_READERS = 16


@dataclass(frozen=True)
class PartStatistics:
    """What a file of rows says of itself.

    Attributes:
        footer: None in files of a merged copy, which have none of ours.
        rows: explanations, rows with an error left out.
        failures: rows with an error, by `stage/code`.
        with_failures: images and shards that have such a row.
        damages: those of them that are no images: damage to shards.
        unexplained: images that have no explanation.
    """

    footer: Footer | None
    rows: int
    failures: Counter[str]
    with_failures: int = 0
    damages: int = 0
    unexplained: int = 0


@dataclass(frozen=True)
class ScanResult:
    """Glances at files by name; the sentence where a file cannot be read; `skipped` are those for which time ended."""

    statistics: dict[str, PartStatistics] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    skipped: int = 0


def scan(store: Store, names: Sequence[str], seconds: float | None = None) -> ScanResult:
    """Look at files in this order, for so long at most; None for all of them. A file that has gone is passed over."""
    until = None if seconds is None else time.monotonic() + seconds
    seen, left, asked = ScanResult(), iter(names), 0
    with ThreadPoolExecutor(_READERS) as readers:
        while (until is None or time.monotonic() < until) and (
            batches := [batch for _ in range(_READERS) if (batch := tuple(islice(left, _BATCH)))]
        ):
            for found in readers.map(lambda batch: dict(_glances(store, batch)), batches):
                seen.statistics.update({name: one for name, one in found.items() if isinstance(one, PartStatistics)})
                seen.damaged.update({name: one for name, one in found.items() if isinstance(one, str)})
            asked += sum(map(len, batches))
    return ScanResult(seen.statistics, seen.damaged, len(names) - asked)


def _glances(store: Store, names: Sequence[str]) -> Iterator[tuple[str, PartStatistics | str]]:
    """Look at some files; one that cannot be read does not hide the others."""
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
        yield from _each(names, fragments)
    elif len(names) > 1:  # the first one stands for the schema of all, so look at each alone
        for name in names:
            yield from _glances(store, [name])


def _each(names: Sequence[str], fragments: Sequence[ds.Fragment]) -> Iterator[tuple[str, PartStatistics | str]]:
    for name, fragment in zip(names, fragments, strict=True):
        try:
            yield name, _glance(fragment)
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError, ValueError) as error:
            yield name, first_line(error)


def _glance(fragment: ds.Fragment) -> PartStatistics:
    metadata = fragment.metadata
    pairs = metadata.metadata or {}
    footer = Footer.from_metadata(pairs) if any(key.startswith(b"camatlas.") for key in pairs) else None
    return (
        _counted(fragment, footer)
        if _may_have_failed(metadata)
        else PartStatistics(footer, metadata.num_rows, Counter())
    )


def _may_have_failed(metadata: pq.FileMetaData) -> bool:
    """Whether any row may have an error, by the statistics of the file."""
    column = metadata.schema.names.index("error_code")
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    statistics = ((group.num_rows, group.column(column).statistics) for group in groups)
    return any(found is None or not found.has_null_count or found.null_count < rows for rows, found in statistics)


def _counted(fragment: ds.Fragment, footer: Footer | None) -> PartStatistics:
    """Look at rows, where some failed."""
    columns = ["shard", "image_key", "error_stage", "error_code"]
    rows = fragment.to_table(columns=columns).to_pylist()
    failed = [row for row in rows if row["error_code"] is not None]
    places = {(row["shard"], row["image_key"]) for row in failed}
    images = {(row["shard"], row["image_key"]) for row in failed if row["error_stage"] != SHARD_STAGE}
    explained = {(row["shard"], row["image_key"]) for row in rows if row["error_code"] is None}
    codes = Counter(f"{row['error_stage']}/{row['error_code']}" for row in failed)
    damages = len(places - images)
    return PartStatistics(footer, len(rows) - len(failed), codes, len(places), damages, len(images - explained))
