"""Prepares runs in this process, and reads the rows of finished ones."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.run.paths import absolute
from pipeline.run.preflight import PreparedRun, prepare
from pipeline.settings.run_file import RunConfig


def prepared(settings: dict[str, Any]) -> PreparedRun:
    return prepare(absolute(RunConfig.model_validate(settings)))


def refused(settings: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        prepared(settings)
    return str(caught.value)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(sorted(folder.glob("part-*.parquet"))).to_pylist()
