"""Explains decoded chunks: the Explainer that makes rows, and the functions for notebooks.

The package is callable, so that `pipeline.explain(model, pixels, ...)` goes on working: importing the package puts it
where the function of the same name was. New code calls `camatlas.explain`.
"""

import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """A package that is called as its function `explain`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as `pipeline.explain.api.explain`
        from pipeline.explain.api import explain

        return explain(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
