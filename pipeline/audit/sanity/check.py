"""Run the sanity checks on a sample of a run, and keep their table with the run.

Randomisation: every method draws its maps again while the model forgets, from its output to its input, what it has
learnt. A method that explains the model must change; one whose maps stay alike shows edges of the image. Class swap:
every method draws its maps for another class, drawn at random. A method whose maps stay the same does not explain the
class (Eigen-CAM, KPCA-CAM and FEM do not claim to).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from pipeline.audit.sanity.randomise import randomised
from pipeline.cams import build_methods
from pipeline.errors import ConfigError
from pipeline.explain.explainer import BATCH_MULTIPLE
from pipeline.explain.explanations import explain_evidence, observe
from pipeline.maps.codec import FloatArray
from pipeline.maps.similarity import enlarged, mean_interval, spearman, ssim
from pipeline.model.noise import generator
from pipeline.model.probe import DEFAULT_BATCH, Probe
from pipeline.results.agreement import SAMPLE
from pipeline.results.query import Run
from pipeline.results.rerun import RunModel, as_batch
from pipeline.storage.checksums import checksummed, open_checksummed
from schemas.sanity import SANITY_FOLDER, SANITY_SCHEMA

Heatmaps = Mapping[str, FloatArray]


def check_sanity(run: Run, images: int, steps: int) -> pa.Table:
    """Check every method of a run; the table is also kept in the run folder and is the view `sanity` of its questions.

    The same check is not done twice; another one (other images, other steps, a run that has grown) takes the place of
    the one before.

    Args:
        run: the run; its images and weights must still be there.
        images: most images to draw.
        steps: in how many steps the model is made random; fewer where it has fewer layers.

    Returns:
        One row a method and step, see `schemas.sanity`.

    Raises:
        ConfigError: there is nothing to check, or images or weights are not those of the run any more.
    """
    wanted = run.arrow(SAMPLE, [images]).to_pylist()
    if not wanted:
        raise ConfigError.one("RUN", "it holds no explanation", "see the view failures")
    name = f"{hashlib.sha256(json.dumps([wanted, steps]).encode()).hexdigest()[:16]}.parquet"
    before = [found for found in run.store.names(SANITY_FOLDER) if found.endswith(".parquet")]
    if name in before:
        return open_checksummed(run.store.read(f"{SANITY_FOLDER}/{name}")).read()
    with torch.inference_mode(False):
        sample = _Sample(run, wanted)
        table = pa.Table.from_pylist([*_randomisation(sample, steps), *_class_swap(sample)], schema=SANITY_SCHEMA)
    for old in before:
        run.store.delete(f"{SANITY_FOLDER}/{old}")
    run.store.publish(f"{SANITY_FOLDER}/{name}", checksummed(table))
    return table


class _Sample:
    """Some images of a run with a target each, and the maps of the model as it is."""

    def __init__(self, run: Run, wanted: list[dict[str, Any]]) -> None:
        again = RunModel(run)
        self.loaded, config = again.loaded, again.config
        self.methods = build_methods(config.explain.methods)
        self.config, self.seed = config, config.explain.seed
        shown = again.pictures([(row["shard"], row["image_key"]) for row in wanted])
        rows = [row for row in wanted if (row["shard"], row["image_key"]) in shown]
        if not rows:
            raise ConfigError.one("RUN", "none of its images is where the run found them", "put the shards back")
        self.normalisation, self.device = again.normalisation, again.device
        self.pixels_BCHW = self.normalisation.apply(as_batch([shown[row["shard"], row["image_key"]] for row in rows]))
        self.targets_B = torch.tensor([row["target"] for row in rows])
        self.keys = tuple(row["image_key"] for row in rows)
        self.learnt = self.maps(self.loaded.model, self.targets_B)

    def maps(self, model: nn.Module, targets_B: Tensor) -> Heatmaps:
        """Heat maps of every method, batch by batch."""
        batch = DEFAULT_BATCH
        probe = Probe(
            model.to(self.device), self.loaded.layer, stages=self.loaded.stages,
            precision=self.config.compute.precision, batch=batch, batch_multiple=BATCH_MULTIPLE,
            normalisation=self.normalisation, seed=self.seed,
        )  # fmt: skip
        parts: dict[str, list[FloatArray]] = {label: [] for label in self.methods}
        for start in range(0, len(self.keys), batch):
            rows = slice(start, start + batch)
            seen = observe(self.pixels_BCHW[rows].to(self.device), self.methods, probe, self.keys[rows])
            found = explain_evidence(seen.evidence(targets_B[rows].to(self.device)), self.methods, probe)
            for label, map_Buv in found.maps.items():
                parts[label].append(enlarged(map_Buv.float().cpu().numpy()))
        return {label: np.concatenate(found) for label, found in parts.items()}

    def rows(self, test: str, step: int, layers: Sequence[str], changed: Heatmaps) -> Iterator[dict[str, object]]:
        """Compare the maps of every method with those of the model as it is."""
        for method, before_BHW in self.learnt.items():
            after_BHW = changed[method]
            rank, rank_half, count = mean_interval(spearman(before_BHW, after_BHW))
            alike, alike_half, _ = mean_interval(ssim(before_BHW, after_BHW))
            yield {
                "test": test, "step": step, "first_layer": layers[0] if layers else None,
                "last_layer": layers[-1] if layers else None, "method": method, "images": len(self.keys),
                "maps": count, "degenerate": float((~after_BHW.any((1, 2))).mean()), "spearman": rank,
                "spearman_half_width": rank_half, "ssim": alike, "ssim_half_width": alike_half,
            }  # fmt: skip


def _randomisation(sample: _Sample, steps: int) -> Iterator[dict[str, object]]:
    for step, (layers, changed) in enumerate(randomised(sample.loaded.model, steps, sample.seed), 1):
        yield from sample.rows("randomisation", step, layers, sample.maps(changed, sample.targets_B))


def _class_swap(sample: _Sample) -> Iterator[dict[str, object]]:
    classes = sample.loaded.classes
    if classes < 2:
        return
    generators = (generator(sample.seed, key, "class swap") for key in sample.keys)
    shifts = [int(torch.randint(1, classes, (), generator=own)) for own in generators]
    others_B = (sample.targets_B + torch.tensor(shifts)) % classes
    yield from sample.rows("class_swap", 1, (), sample.maps(sample.loaded.model, others_B))
