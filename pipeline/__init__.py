"""camatlas: explain a whole image dataset.

The doors for notebooks are opened on first use, so that small workers do not pay for torch or DuckDB.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.atlas import Atlas, open_atlas
    from pipeline.explanations import Explanations
    from pipeline.notebook import evaluate, explain
    from pipeline.query import Run, open_run

__all__ = ["Atlas", "Explanations", "Run", "evaluate", "explain", "open_atlas", "open_run"]

_DOORS = {
    "explain": "pipeline.notebook",
    "evaluate": "pipeline.notebook",
    "Explanations": "pipeline.explanations",
    "open_run": "pipeline.query",
    "Run": "pipeline.query",
    "open_atlas": "pipeline.atlas",
    "Atlas": "pipeline.atlas",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what a module holds
    if name not in _DOORS:
        raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_DOORS[name]), name)
