"""The pipeline of camatlas, one package per step; `docs/architecture.md` shows which may import which.

The names of `camatlas` are reachable here as well, lazily, so that workers do not import what they do not need.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.explain.api import evaluate, explain
    from pipeline.explain.explanations import Explanations
    from pipeline.results.atlas import Atlas, open_atlas
    from pipeline.results.query import Run, open_run

__all__ = ["Atlas", "Explanations", "Run", "evaluate", "explain", "open_atlas", "open_run"]

_LAZY_EXPORTS = {
    "Atlas": "pipeline.results.atlas",
    "Explanations": "pipeline.explain.explanations",
    "Run": "pipeline.results.query",
    "evaluate": "pipeline.explain.api",
    "explain": "pipeline.explain.api",
    "open_atlas": "pipeline.results.atlas",
    "open_run": "pipeline.results.query",
}

if not TYPE_CHECKING:  # a type checker would take any name for a name of this package

    def __getattr__(name: str) -> object:
        """Import a public name on first use."""
        if name not in _LAZY_EXPORTS:
            raise AttributeError(f"module 'pipeline' has no attribute '{name}'")
        import importlib

        return getattr(importlib.import_module(_LAZY_EXPORTS[name]), name)
