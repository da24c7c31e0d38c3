"""Runs on a few random images, and Parquet files of maps, for tests of stored maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.look import look
from pipeline.errors import ConfigError
from pipeline.run.paths import absolute
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.settings.run_file import RunConfig

IMAGES, SIDE = 5, 16
METRICS = ["average_drop", "complexity", {"insertion": {"steps": 4}}]


def fields(images: Path, run: Path, methods: list[Any], *, explain: object = None, **output: object) -> dict[str, Any]:
    """Return a run file; `explain` and `output` hold further settings of these sections."""
    return {
        "data": {"shards": str(images), "chunk_images": 3},
        "model": {"name": "nets:ToyNet", "layer": "features.3", "preprocess": {"resize": None, "crop": SIDE}},
        "explain": {"methods": methods, "metrics": METRICS} | dict(explain or {}),
        "compute": {"device": "cpu", "batch": 16},
        "output": {"path": str(run), **output},
    }


def prepared(settings: dict[str, Any]) -> PreparedRun:
    return prepare(absolute(RunConfig.model_validate(settings)))


def refused(settings: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        prepared(settings)
    return str(caught.value)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(sorted(folder.glob("part-*.parquet"))).to_pylist()


def of_method(folder: Path, method: str) -> dict[str, dict[str, Any]]:
    return {row["image_key"]: row for row in rows_of(folder) if row["method"] == method}


def keys_of(images: Path) -> list[str]:
    run = prepared(fields(images, images.parent / "never", ["gradcam"]))
    return list(look(run.shards, run.reading).keys)


def table(keys: list[str], **columns: object) -> pa.Table:
    maps = [np.arange(4, dtype=np.float32) + i for i in range(len(keys))]
    given = {"key": keys, "map": [one.tobytes() for one in maps], "height": [2] * len(keys), "width": [2] * len(keys)}
    given |= columns
    return pa.table({name: column for name, column in given.items() if column is not None})


def written(path: Path, content: pa.Table) -> str:
    pq.write_table(content, path, row_group_size=2)
    return str(path)


def stored(path: str, **options: object) -> list[Any]:
    return [{"stored": {"path": path, **options}}]
