"""Finished runs over planted datasets, in this process: the steps of a real run, without Ray between them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planted.defects import Control
from planted.models import LAYER, MEAN, STD, save, trained
from planted.scenes import CLASSES, SIDE
from torch import nn

from pipeline.audit.sanity import check_sanity
from pipeline.explain.explainer import Explainer
from pipeline.results.query import open_run
from pipeline.run.attempts import Ledger
from pipeline.run.loading import Recipe
from pipeline.run.preflight import absolute, prepare
from pipeline.run.worker import Worker
from pipeline.settings.run_file import parse_config
from pipeline.storage.ownership import take_ownership

Settings = dict[str, Any]
METHODS: tuple[Any, ...] = ("gradcam", "layercam", {"integrated_gradcam": {"steps": 5}})
METRICS: tuple[Any, ...] = (
    "average_drop", {"insertion": {"steps": 6, "fill": "mean"}}, {"deletion": {"steps": 6}}, "energy_in_box",
    "pointing_game", "box_removed_confidence", "box_only_confidence",
)  # fmt: skip
SANITY_IMAGES, SANITY_STEPS = 32, 3
BATCH = 64


@dataclass
class Workshop:
    """Makes models and runs where they are asked for, each once.

    Attributes:
        folder: where they lie.
    """

    folder: Path
    _models: dict[tuple[str, int], nn.Module] = field(default_factory=dict)
    _runs: dict[Control, Path] = field(default_factory=dict)

    def model(self, planted: Control) -> nn.Module:
        """The model of a dataset; datasets that differ in the test alone share one."""
        kind = (planted.taught, planted.seed)
        if kind not in self._models:
            self._models[kind] = trained(planted.training(), planted.seed, planted.epochs)
            save(self._models[kind], self._weights(planted))
        return self._models[kind]

    def run(self, planted: Control) -> Path:
        """The folder of a finished run over a dataset, its sanity check included."""
        if planted not in self._runs:
            self.model(planted)
            folder = self.folder / f"{planted.name}_{planted.seed}"
            planted.write(folder)
            self._runs[planted] = explained(run_file(planted, folder, self._weights(planted)))
        return self._runs[planted]

    def _weights(self, planted: Control) -> Path:
        return self.folder / f"{planted.taught}_{planted.seed}.safetensors"


def run_file(planted: Control, folder: Path, weights: Path) -> Settings:
    """The run file over a dataset that was written to a folder; the class table is written there too."""
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
    """Do all of a run here, shard by shard, and its sanity check; gives the run folder."""
    config, mistakes = parse_config(fields)
    assert not mistakes
    run = prepare(absolute(config))
    take_ownership(run.store, run.manifest)
    explainer = Explainer(run.loaded.model, run.explainer_spec("cpu", workers=1))
    worker = Worker(explainer.tables, run.manifest.run_id, run.store.url, Ledger())
    recipe = Recipe.of(run, load_bytes=0)
    for shard in run.shards:
        for load in recipe.loads(shard):
            for _ in worker.tell(load):
                pass
    path = Path(config.output.path)
    with open_run(path) as opened:
        check_sanity(opened, SANITY_IMAGES, SANITY_STEPS)
    return path
