"""Explain a whole image dataset: every CAM method from one forward pass, each map stored exactly once in Parquet.

    import camatlas

    explanations = camatlas.explain(model, pixels, methods=["gradcam", "iscam"], layer="layer4")
    explanations.heatmap("gradcam", size=(224, 224))  # (B, 224, 224) in [0, 1]

    run = camatlas.open_run("my_run")
    run.sql("SELECT method, avg(average_drop) FROM explanations GROUP BY method")

Names are imported on first use, so that `import camatlas` costs milliseconds and reading a run needs no torch.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.cams import BaseMethod, Cost, Needs, NetShape
    from pipeline.cams.base import Paper
    from pipeline.errors import CamatlasError, ConfigError, DamagedRunError, PluginError, StalledError, StoreError
    from pipeline.explain.api import evaluate, explain
    from pipeline.explain.explanations import Explanations
    from pipeline.metrics import BaseMetric, Parts, ScoringBatch
    from pipeline.metrics.base import Redrawn
    from pipeline.metrics.views import EveryRow, Ranked, Removed, Soft, TopPixels
    from pipeline.model.evidence import Evidence
    from pipeline.model.probe import Probe
    from pipeline.model.tasks import Similarity, ZeroShot
    from pipeline.results.atlas import Atlas, open_atlas
    from pipeline.results.query import Run, open_run

__all__ = [
    "Atlas",
    "BaseMethod",
    "BaseMetric",
    "CamatlasError",
    "ConfigError",
    "Cost",
    "DamagedRunError",
    "EveryRow",
    "Evidence",
    "Explanations",
    "Needs",
    "NetShape",
    "Paper",
    "Parts",
    "PluginError",
    "Probe",
    "Ranked",
    "Redrawn",
    "Removed",
    "Run",
    "ScoringBatch",
    "Similarity",
    "Soft",
    "StalledError",
    "StoreError",
    "TopPixels",
    "ZeroShot",
    "evaluate",
    "explain",
    "open_atlas",
    "open_run",
]

_LAZY_EXPORTS = {
    "Atlas": "pipeline.results.atlas",
    "BaseMethod": "pipeline.cams",
    "BaseMetric": "pipeline.metrics",
    "CamatlasError": "pipeline.errors",
    "ConfigError": "pipeline.errors",
    "Cost": "pipeline.cams",
    "DamagedRunError": "pipeline.errors",
    "EveryRow": "pipeline.metrics.views",
    "Evidence": "pipeline.model.evidence",
    "Explanations": "pipeline.explain.explanations",
    "Needs": "pipeline.cams",
    "NetShape": "pipeline.cams",
    "Paper": "pipeline.cams.base",
    "Parts": "pipeline.metrics",
    "PluginError": "pipeline.errors",
    "Probe": "pipeline.model.probe",
    "Ranked": "pipeline.metrics.views",
    "Redrawn": "pipeline.metrics.base",
    "Removed": "pipeline.metrics.views",
    "Run": "pipeline.results.query",
    "ScoringBatch": "pipeline.metrics",
    "Similarity": "pipeline.model.tasks",
    "Soft": "pipeline.metrics.views",
    "StalledError": "pipeline.errors",
    "StoreError": "pipeline.errors",
    "TopPixels": "pipeline.metrics.views",
    "ZeroShot": "pipeline.model.tasks",
    "evaluate": "pipeline.explain.api",
    "explain": "pipeline.explain.api",
    "open_atlas": "pipeline.results.atlas",
    "open_run": "pipeline.results.query",
}
_PACKAGES = ("pipeline", "jobs", "schemas")


def _refuse_shadowed_packages() -> None:
    """Raise ImportError where a module of the user's has the name of one of our packages and is found first."""
    home = Path(__file__).resolve().parents[1]
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = spec.origin if spec is not None else None
        if origin is None or Path(origin).resolve() != home / name / "__init__.py":
            found = f"Python finds {origin} instead" if origin else "Python does not find it"
            raise ImportError(
                f"camatlas needs its own package '{name}', but {found}: rename that module, or start Python where it "
                "is not on the import path (sys.path)"
            )


if not TYPE_CHECKING:  # a type checker would take any name for a name of this package

    def __getattr__(name: str) -> object:
        """Import a public name on first use."""
        if name not in _LAZY_EXPORTS:
            raise AttributeError(f"module 'camatlas' has no attribute '{name}'")
        _refuse_shadowed_packages()
        try:
            found = getattr(importlib.import_module(_LAZY_EXPORTS[name]), name)
        except ModuleNotFoundError as error:  # an installation for queries alone leaves out torch and Ray
            raise ImportError(
                f"camatlas.{name} needs {error.name}, which is not installed: pip install camatlas", name=error.name
            ) from error
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
