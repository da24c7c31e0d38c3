"""camatlas: explain a whole image dataset.

The doors for notebooks are opened on first use, so that small workers do not pay for torch or DuckDB.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.explain.api import evaluate, explain
    from pipeline.explain.explanations import Explanations
    from pipeline.results.atlas import Atlas, open_atlas
    from pipeline.results.query import Run, open_run

__all__ = ["Atlas", "Explanations", "Run", "evaluate", "explain", "open_atlas", "open_run"]

_LAZY_EXPORTS = {
    "explain": "pipeline.explain.api",
    "evaluate": "pipeline.explain.api",
    "Explanations": "pipeline.explain.explanations",
    "open_run": "pipeline.results.query",
    "Run": "pipeline.results.query",
    "open_atlas": "pipeline.results.atlas",
    "Atlas": "pipeline.results.atlas",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    if name not in _LAZY_EXPORTS:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY_EXPORTS[name]), name)
