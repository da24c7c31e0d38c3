"""Finished runs over planted datasets, made in this process: the steps of a real run without Ray."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inline import publish_all
from planted.defects import Control
from planted.models import LAYER, MEAN, STD, save, trained
from planted.scenes import CLASSES, SIDE
from torch import nn

from pipeline.audit.sanity import check_sanity
from pipeline.results.query import open_run

Settings = dict[str, Any]
METHODS: tuple[Any, ...] = ("gradcam", "layercam", {"integrated_gradcam": {"steps": 5}})
METRICS: tuple[Any, ...] = (
    "average_drop", {"insertion": {"steps": 6, "fill": "mean"}}, {"deletion": {"steps": 6}}, "energy_in_box",
    "pointing_game", "box_removed_confidence", "box_only_confidence",
)  # fmt: skip
SANITY_IMAGES, SANITY_STEPS = 32, 3
BATCH = 64


@dataclass
class PlantedRuns:
    """Makes models and runs on demand, each once.

    Attributes:
        folder: the folder for their files.
    """

    folder: Path
    _models: dict[tuple[str, int], nn.Module] = field(default_factory=dict)
    _runs: dict[Control, Path] = field(default_factory=dict)

    def model(self, planted: Control) -> nn.Module:
        """Return the model of a dataset; datasets with the same training set share one."""
        kind = (planted.training_set, planted.seed)
        if kind not in self._models:
            self._models[kind] = trained(planted.training(), planted.seed, planted.epochs)
            save(self._models[kind], self._weights(planted))
        return self._models[kind]

    def run(self, planted: Control) -> Path:
        """Return the folder of a finished run over a dataset, including its sanity check."""
        if planted not in self._runs:
            self.model(planted)
            folder = self.folder / f"{planted.name}_{planted.seed}"
            planted.write(folder)
            self._runs[planted] = explained(run_file(planted, folder, self._weights(planted)))
        return self._runs[planted]

    def _weights(self, planted: Control) -> Path:
        return self.folder / f"{planted.training_set}_{planted.seed}.safetensors"


def run_file(planted: Control, folder: Path, weights: Path) -> Settings:
    """Build the run file for a dataset in a folder, and write the table of classes there."""
    lines = ["class_index,class_name", *(f"{index},{name}" for index, name in enumerate(CLASSES))]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "data": {"shards": f"{folder}/shards", "classes": f"{folder}/classes.csv"},
        "model": {
            "name": "planted.models:build",
            "weights": str(weights),
            "layer": LAYER,
            "preprocess": {"resize": None, "crop": SIDE, "mean": list(MEAN), "std": list(STD)},
        },
        "explain": {"methods": [*METHODS, *planted.methods], "metrics": list(METRICS)},
        "compute": {"device": "cpu", "batch": BATCH, "compile": False},
        "output": {"path": f"{folder}/run"},
    }


def explained(fields: Settings) -> Path:
    """Execute a run shard by shard, and its sanity check; returns the run folder."""
    path = publish_all(fields)
    with open_run(path) as opened:
        check_sanity(opened, SANITY_IMAGES, SANITY_STEPS)
    return path
