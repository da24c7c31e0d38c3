"""Runs to merge: many images whose keys come in no order, and what a reader of ours and a plain one see of them."""

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
"""Limits that make many files and row groups of few rows."""


@dataclass(frozen=True)
class ManyImages(RunMaker):
    """A run of three parts with many explained images each; every part has some from all over the alphabet."""

    images: int = 30

    def image(self, part: PartName, number: int) -> str:
        """Key of an image: drawn by a hash, so that parts overlap."""
        word = random.Random(f"{part} {number}").randbytes(3).hex()
        return f"{word}-{super().image(part, number)}"

    def rows(self, part: PartName) -> list[Row]:
        """The rows of a chunk."""
        return [row for number in range(self.images) for row in self.explained(part, number)]

    def footer(self, part: PartName, run_id: str = "") -> Footer:
        """The footer of a chunk."""
        return replace(super().footer(part, run_id), images=self.images)


def files(run: RunMaker) -> tuple[str, ...]:
    """The files that readers of ours open."""
    return files_of(run.store, run.manifest.run_id).names


def merged_tables(run: RunMaker) -> list[pa.Table]:
    """What is in them, file by file."""
    return [pq.read_table(run.folder / name) for name in files(run)]


def seen(folder: Path) -> list[Key]:
    """Everything that a reader of ours sees of a run, rows in order of their keys."""
    with open_run(folder) as run:
        return ordered(run.arrow("SELECT * FROM parts"))


def seen_plainly(folder: Path) -> list[Key]:
    """Everything that DuckDB sees in RUN/*.parquet."""
    with duckdb.connect() as connection:
        return ordered(connection.sql(f"SELECT * FROM '{folder}/*.parquet'").to_arrow_table())


def ordered(table: pa.Table) -> list[Key]:
    return sorted((tuple(row.values()) for row in table.to_pylist()), key=repr)


def copy_of(folder: Path) -> dict[str, bytes]:
    """The files of the merged copy, unfinished ones too."""
    return {path.name: path.read_bytes() for path in sorted((folder / COMPACT).glob("*"))}


def row_groups(store: LocalStore, names: tuple[str, ...], key: str) -> int:
    """How many row groups of files may hold an image, by their statistics."""
    wanted = pa.dataset.field("image_key") == key
    fragments = store.dataset(names).get_fragments(wanted)
    return sum(len(fragment.subset(wanted).row_groups) for fragment in fragments)
