"""Runs whose values are given: one number for each metric, method and image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from handmade import GRID, RunMaker
from reference.rows import explanation_row

from pipeline.explain.rows import ImageFacts, MethodFacts, Row
from pipeline.metrics import METRICS
from pipeline.settings.registry import parameters
from pipeline.storage.parts import publish_part
from pipeline.storage.run_folder import PartName
from schemas.manifest import RunIdentity, RunManifest

Table = Mapping[str, Mapping[str, Sequence[float]]]
"""The values of each image, by metric and method; NaN for a missing one."""


@dataclass(frozen=True)
class ValuedRun(RunMaker):
    """A run of one shard and one chunk.

    Attributes:
        values_of: the values.
        model: name of the model; also stands for its weights.
        weights: what the run file names as weights.
        chunks: number of chunks of the run, of which the first one is published.
        params: parameters of metrics that are not the defaults.
        methods_of: the name in the registry of methods that have another name.
        algorithm: the algorithm of those methods, if they are of captum.
        constant: methods whose maps are constant.
        config: the run file.
    """

    values_of: Table = field(default_factory=dict)
    model: str = "toy"
    weights: str = "toy.safetensors"
    chunks: int = 1
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    methods_of: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = ""
    constant: Sequence[str] = ()
    targets: str = "predicted"

    @property
    def identity(self) -> RunIdentity:
        images = self.images
        kinds = {name: parameters(METRICS[name]()) if name in METRICS else {"name": name} for name in self.metrics}
        return super().identity.model_copy(
            update={
                "model": {"name": self.model, "weights_sha256": self.model, "layer": "features"},
                "chunk_images": images,
                "targets": self.targets,
                "methods": {name: self._method(name) for name in self.methods},
                "metrics": {name: fields | dict(self.params.get(name, {})) for name, fields in kinds.items()},
            }
        )

    def _method(self, name: str) -> dict[str, Any]:
        algorithm = {"algorithm": self.algorithm} if self.algorithm and name in self.methods_of else {}
        return {"name": self.methods_of.get(name, name), **algorithm}

    @property
    def images(self) -> int:
        return len(next(iter(next(iter(self.values_of.values())).values())))

    @property
    def manifest(self) -> RunManifest:
        counts = (self.images * self.chunks,)
        return super().manifest.model_copy(update={"config": {"model": {"weights": self.weights}}, "images": counts})

    def image(self, part: PartName, number: int) -> str:
        return f"{part.chunk}-{number:04d}"

    def rows(self, part: PartName) -> list[Row]:
        return [self._row(part, number, method) for number in range(self.images) for method in self.methods]

    def _row(self, part: PartName, number: int, method: str) -> Row:
        map_uv = np.arange(12, dtype=np.float32).reshape(GRID) * (method not in self.constant)
        values = {name: self.values_of[name].get(method, [np.nan] * self.images)[number] for name in self.metrics}
        facts = ImageFacts(
            image_key=self.image(part, number), shard=self.shards[0], chunk=0, image_height=48, image_width=64, label=1,
            predicted=1, confidence=0.75, target=1, target_rule="predicted", target_confidence=0.75, target_logit=1.0,
        )  # fmt: skip
        return explanation_row(facts, MethodFacts(method, "{}", "features"), map_uv, values, "u8")


def valued_run(folder: Path, table: Table, **changes: Any) -> str:
    """Write a run with these values; return its folder."""
    methods = changes.pop("methods", tuple(dict.fromkeys(name for column in table.values() for name in column)))
    maker = ValuedRun(
        folder, shards=("a.tar",), methods=methods, metrics=tuple(table), values_of=table, **changes
    ).owned()
    part = PartName(0, 0)
    footer = maker.footer(part)
    whole = type(footer)(footer.run_id, 0, 0, last_chunk=maker.chunks == 1, images=maker.images)
    publish_part(maker.store, maker.table(part), whole)
    return str(folder)
