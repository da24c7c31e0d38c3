"""Runs to merge, with many images in random key order, and their rows as read by camatlas and by plain DuckDB."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from handmade import RunMaker

from pipeline.explain.rows import Row
from pipeline.results.query import open_run
from pipeline.storage.compaction import Limits
from pipeline.storage.local_store import LocalStore
from pipeline.storage.merged import COMPACT, files_of
from pipeline.storage.parts import Footer
from pipeline.storage.run_folder import PartName

Key = tuple[Any, ...]
SMALL = Limits(rows=25, group_rows=4)
"""Limits that produce many files, with few rows per row group."""


@dataclass(frozen=True)
class ManyImages(RunMaker):
    """A run of three parts with many explained images each; the keys of every part cover the whole key range."""

    images: int = 30

    def image(self, part: PartName, number: int) -> str:
        """Return the pseudo-random key of an image; the key ranges of parts overlap."""
        word = random.Random(f"{part} {number}").randbytes(3).hex()
        return f"{word}-{super().image(part, number)}"

    def rows(self, part: PartName) -> list[Row]:
        """Return the rows of a chunk."""
        return [row for number in range(self.images) for row in self.explained(part, number)]

    def footer(self, part: PartName, run_id: str = "") -> Footer:
        """Return the footer of a chunk."""
        return replace(super().footer(part, run_id), images=self.images)


def files(run: RunMaker) -> tuple[str, ...]:
    """Return the names of the files that camatlas reads."""
    return files_of(run.store, run.manifest.run_id).names


def merged_tables(run: RunMaker) -> list[pa.Table]:
    """Return the rows of these files, one table per file."""
    return [pq.read_table(run.folder / name) for name in files(run)]


def seen(folder: Path) -> list[Key]:
    """Return all rows of a run as read by camatlas, in order of their keys."""
    with open_run(folder) as run:
        return ordered(run.arrow("SELECT * FROM parts"))


def seen_plainly(folder: Path) -> list[Key]:
    """Return all rows in RUN/*.parquet as read by DuckDB, in order of their keys."""
    with duckdb.connect() as connection:
        return ordered(connection.sql(f"SELECT * FROM '{folder}/*.parquet'").to_arrow_table())


def ordered(table: pa.Table) -> list[Key]:
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


def copy_of(folder: Path) -> dict[str, bytes]:
    """Return the contents of the merged copy's files by name, including temporary files."""
    return {path.name: path.read_bytes() for path in sorted((folder / COMPACT).glob("*"))}


def row_groups(store: LocalStore, names: tuple[str, ...], key: str) -> int:
    """Return the number of row groups that may hold an image, according to their statistics."""
    wanted = pa.dataset.field("image_key") == key
    fragments = store.dataset(names).get_fragments(wanted)
    return sum(len(fragment.subset(wanted).row_groups) for fragment in fragments)
