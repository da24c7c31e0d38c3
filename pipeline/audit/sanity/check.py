"""Runs the sanity checks on a sample of a run, and stores their table with the run.

Randomisation: the maps of every method are computed again while the model's weights are randomised layer by layer, from
the output to the input. Maps that stay similar do not depend on the model, and may show edges of the image.

Class swap: the maps of every method are computed for another class, chosen at random. Maps that stay the same do not
explain the class (Eigen-CAM, KPCA-CAM, FEM, raw attention and attention rollout are not meant to).
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
from pipeline.cams import CamMethod, build_methods, redrawable
from pipeline.errors import ConfigError
from pipeline.explain.explainer import BATCH_MULTIPLE
from pipeline.explain.explanations import explain_evidence, observe
from pipeline.maps.codec import FloatArray
from pipeline.maps.similarity import enlarged, mean_interval, spearman, ssim
from pipeline.model.arithmetic import multiplying
from pipeline.model.batching import DEFAULT_BATCH
from pipeline.model.noise import Stream
from pipeline.model.probe import Probe
from pipeline.results.agreement import SAMPLE
from pipeline.results.query import Run
from pipeline.results.rerun import RunModel, as_batch
from pipeline.settings.plugins import Plugged
from pipeline.settings.registry import parameters
from pipeline.storage.checksums import checksummed, open_checksummed
from schemas.manifest import digest_of
from schemas.sanity import SANITY_FOLDER, SANITY_SCHEMA

Heatmaps = Mapping[str, FloatArray]


def check_sanity(run: Run, images: int, steps: int) -> pa.Table:
    """Check every method of a run, and store the table in the run folder, where queries see it as the view `sanity`.

    An identical check (same images and steps) is read back instead of repeated. A different one replaces it.

    Args:
        run: the run; its images and weights must still be available.
        images: largest number of images.
        steps: number of randomisation steps; fewer if the model has fewer layers.

    Returns:
        One row per method and step, see `schemas.sanity`.

    Raises:
        ConfigError: the run has no explanation, or its images or weights are missing or have changed.
    """
    wanted = run.arrow(SAMPLE, [images]).to_pylist()
    if not wanted:
        raise ConfigError.one("RUN", "it has no explanations", "see the view failures")
    name = f"{hashlib.sha256(json.dumps([wanted, steps]).encode()).hexdigest()[:16]}.parquet"
    stored = [file for file in run.store.names(SANITY_FOLDER) if file.endswith(".parquet")]
    if name in stored:
        return open_checksummed(run.store.read(f"{SANITY_FOLDER}/{name}")).read()
    with torch.inference_mode(False):
        sample = _Sample(run, wanted)
        table = pa.Table.from_pylist([*_randomisation(sample, steps), *_class_swap(sample)], schema=SANITY_SCHEMA)
    for old in stored:
        run.store.delete(f"{SANITY_FOLDER}/{old}")
    run.store.publish(f"{SANITY_FOLDER}/{name}", checksummed(table))
    return table


class _Sample:
    """A sample of images with one target each, and their maps with the original weights."""

    def __init__(self, run: Run, wanted: list[dict[str, Any]]) -> None:
        rerun = RunModel(run)
        self.loaded, config = rerun.loaded, rerun.config
        self.methods = redrawable(build_methods(config.explain.methods))
        _check_plugins(run, self.methods)
        self.config, self.seed = config, config.explain.seed
        originals = rerun.pictures([(row["shard"], row["image_key"]) for row in wanted])
        rows = [row for row in wanted if (row["shard"], row["image_key"]) in originals]
        if not rows:
            raise ConfigError.one("RUN", "none of its sampled images can be read from the shards", "restore the shards")
        self.normalisation, self.device = rerun.normalisation, rerun.device
        self.pixels_BCHW = self.normalisation.apply(
            as_batch([originals[row["shard"], row["image_key"]] for row in rows])
        )
        self.targets_B = torch.tensor([row["target"] for row in rows])
        self.keys = tuple(row["image_key"] for row in rows)
        self.original_maps = self.maps(self.loaded.model, self.targets_B)

    def maps(self, model: nn.Module, targets_B: Tensor) -> Heatmaps:
        """Compute the heat maps of every method, batch by batch, (B, H, W)."""
        batch = DEFAULT_BATCH
        probe = Probe(
            model.to(self.device), self.loaded.layer, stages=self.loaded.stages,
            precision=self.config.compute.precision, batch=batch, batch_multiple=BATCH_MULTIPLE,
            normalisation=self.normalisation, seed=self.seed, outputs=self.loaded.outputs,
            layout=self.loaded.layouts,
        )  # fmt: skip
        parts: dict[str, list[FloatArray]] = {label: [] for label in self.methods}
        for start in range(0, len(self.keys), batch):
            rows = slice(start, start + batch)
            with multiplying(probe.precision):
                observed = observe(self.pixels_BCHW[rows].to(self.device), self.methods, probe, self.keys[rows])
                explained = explain_evidence(observed.evidence(targets_B[rows].to(self.device)), self.methods, probe)
            for label, map_Buv in explained.maps.items():
                parts[label].append(enlarged(map_Buv.float().cpu().numpy()))
        return {label: np.concatenate(batches) for label, batches in parts.items()}

    def rows(self, test: str, step: int, layers: Sequence[str], changed: Heatmaps) -> Iterator[dict[str, object]]:
        """Compare the maps of every method with those of the original weights."""
        for method, before_BHW in self.original_maps.items():
            after_BHW = changed[method]
            rank, rank_half, count = mean_interval(spearman(before_BHW, after_BHW))
            structural, structural_half, _ = mean_interval(ssim(before_BHW, after_BHW))
            yield {
                "test": test, "step": step, "first_layer": layers[0] if layers else None,
                "last_layer": layers[-1] if layers else None, "method": method, "images": len(self.keys),
                "maps": count, "degenerate": float((~after_BHW.any((1, 2))).mean()), "spearman": rank,
                "spearman_half_width": rank_half, "ssim": structural, "ssim_half_width": structural_half,
            }  # fmt: skip


def _check_plugins(run: Run, methods: Mapping[str, CamMethod]) -> None:
    """Raise ConfigError if a method of the user's is not the one that the run used."""
    recorded = run.manifest.identity.methods
    changed = [
        label
        for label, method in methods.items()
        if isinstance(method, Plugged) and digest_of(parameters(method)) != digest_of(recorded.get(label))
    ]
    if changed:
        raise ConfigError.one(
            "RUN", f"the source of the plug-ins {', '.join(changed)} has changed since the run", "restore it"
        )


def _randomisation(sample: _Sample, steps: int) -> Iterator[dict[str, object]]:
    for step, (layers, changed) in enumerate(randomised(sample.loaded.model, steps, sample.seed), 1):
        yield from sample.rows("randomisation", step, layers, sample.maps(changed, sample.targets_B))


def _class_swap(sample: _Sample) -> Iterator[dict[str, object]]:
    classes = sample.loaded.classes
    if classes < 2:
        return
    shifts = [1 + Stream(sample.seed, key, "class swap").below(classes - 1) for key in sample.keys]
    others_B = (sample.targets_B + torch.tensor(shifts)) % classes
    yield from sample.rows("class_swap", 1, (), sample.maps(sample.loaded.model, others_B))
