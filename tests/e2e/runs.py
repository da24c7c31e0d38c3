"""Helpers for whole runs."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Settings = dict[str, Any]


def write_run_file(fields: Settings, path: Path) -> Path:
    """Write a run file."""
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def table_of(path: str | Path) -> pa.Table:
    """All rows of a run in one order, read by pyarrow alone; the place of a shard in the list does not count."""
    keys = ["shard", "image_key", "target", "method"]
    return pa.concat_tables(map(pq.read_table, sorted(Path(path).glob("*.parquet")))).sort_by(
        [(key, "ascending") for key in keys]
    )
