"""The layouts of Parquet files are read by one subprocess, which takes a second to start."""

from collections.abc import Iterator

import pytest

from pipeline.data.sources.parquet_sandbox import parquet_sandbox


@pytest.fixture(scope="module", autouse=True)
def one_subprocess() -> Iterator[None]:
    with parquet_sandbox():
        yield
