"""Helpers for whole runs."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.storage.store import open_store

Settings = dict[str, Any]
KEYS = ("shard", "image_key", "target", "method")
in_both_places = pytest.mark.parametrize(
    "place", ["folder", pytest.param("s3", marks=pytest.mark.campaign)], indirect=True
)
"""Runs a test with shards and run folder on the disk, and as a campaign with both in an object store, which
`test_object_store_run.py` compares in every test run."""


@dataclass(frozen=True)
class Place:
    """The location of the shards and the run folder of a test: a folder, or a prefix in an object store."""

    root: str

    def put(self, folder: Path) -> str:
        """Copy the files of a folder to the place if it is a store, and return the path or URL of the folder."""
        if "://" not in self.root:
            return str(folder)
        store = open_store(f"{self.root}/{folder.name}")
        for path in folder.iterdir():
            assert store.publish(path.name, path.read_bytes())
        return f"{store.url}/"


def write_run_file(fields: Settings, path: Path) -> Path:
    """Write a run file."""
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def table_of(path: str | Path) -> pa.Table:
    """Return all rows of a run, read by pyarrow alone and sorted by key; the order of the shards does not matter."""
    store = open_store(str(path))
    tables = [pq.read_table(io.BytesIO(store.read(name))) for name in store.names() if name.endswith(".parquet")]
    return pa.concat_tables(tables).sort_by([(key, "ascending") for key in KEYS])
