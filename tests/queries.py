"""Helpers for queries on a run: the rows of a result, and the message of a refused query."""

from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.results.query import Run


def rows(run: Run, query: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in run.arrow(query, parameters).to_pylist()]


def refusal(run: Run, query: str, parameters: list[Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        run.arrow(query, parameters)
    return str(caught.value)
