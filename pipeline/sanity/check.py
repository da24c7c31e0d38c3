"""Run the sanity checks on a sample of a run, and keep their table with the run.

Randomisation: every method draws its maps again while the model forgets, from its output to its input, what it has
learnt. A method that explains the model must change; one whose maps stay alike shows edges of the image. Class swap:
every method draws its maps for another class, drawn at random. A method whose maps stay the same does not explain the
class (Eigen-CAM, KPCA-CAM and FEM do not claim to).
"""

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from pipeline.agreement import SAMPLE
from pipeline.codec import FloatArray
from pipeline.config import RunConfig
from pipeline.errors import ConfigError
from pipeline.explainer import BATCH_MULTIPLE
from pipeline.explanations import explain_evidence, observe
from pipeline.model.noise import generator
from pipeline.model.probe import Probe
from pipeline.originals import originals
from pipeline.preflight import PreparedRun, prepare
from pipeline.query import Run
from pipeline.sanity.randomise import randomised
from pipeline.similarity import enlarged, mean_interval, spearman, ssim
from schemas.sanity import SANITY_FOLDER, SANITY_SCHEMA

Heatmaps = Mapping[str, FloatArray]


def check_sanity(run: Run, images: int, steps: int) -> pa.Table:
    """Check every method of a run; the table is also kept in the run folder and is the view `sanity` of its questions.

    Args:
        run: the run; its shards and weights must still be there.
        images: most images to draw.
        steps: in how many steps the model is made random.

    Returns:
        One row a method and step, see `schemas.sanity`.

    Raises:
        ConfigError: images, model or weights are not those of the run any more.
    """
    name = f"{SANITY_FOLDER}/images-{images:05d}-steps-{steps:02d}.parquet"
    if name.rpartition("/")[2] in run.store.names(SANITY_FOLDER):
        return pq.read_table(io.BytesIO(run.store.read(name)))
    prepared = prepare(RunConfig.model_validate(run.manifest.config))
    with torch.inference_mode(False):
        sample = _Sample.of(run, prepared, images)
        rows = [*_randomisation(sample, prepared, steps), *_class_swap(sample, prepared)]
    table = pa.Table.from_pylist(rows, schema=SANITY_SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    run.store.publish(name, buffer.getvalue())
    return table


class _Sample:
    """Some images of a run with their targets, and the maps of the model as it is."""

    def __init__(self, pixels_BCHW: Tensor, targets_B: Tensor, keys: Sequence[str], prepared: PreparedRun) -> None:
        self.pixels_BCHW, self.targets_B, self.keys = pixels_BCHW, targets_B, tuple(keys)
        self.prepared = prepared
        self.device = "cuda" if prepared.config.compute.device != "cpu" and torch.cuda.is_available() else "cpu"
        self.learnt = self.maps(prepared.loaded.model, targets_B)

    @classmethod
    def of(cls, run: Run, prepared: PreparedRun, images: int) -> "_Sample":
        """Draw (image, target) pairs by a hash of their names, and read their images again."""
        rows = run.arrow(SAMPLE, [images]).to_pylist()
        shown = dict(originals(run.manifest, [(row["shard"], row["image_key"]) for row in rows]))
        rows = [row for row in rows if (row["shard"], row["image_key"]) in shown]
        if not rows:
            raise ConfigError.one("RUN", "none of its images is where the run found them", "put the shards back")
        pictures = [np.asarray(shown[row["shard"], row["image_key"]].image.convert("RGB")) for row in rows]
        pixels_BCHW = torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).float().div(255).contiguous()
        normalised_BCHW = prepared.explainer_spec("cpu").normalisation.apply(pixels_BCHW)
        return cls(
            normalised_BCHW, torch.tensor([row["target"] for row in rows]), [r["image_key"] for r in rows], prepared
        )

    def maps(self, model: nn.Module, targets_B: Tensor) -> Heatmaps:
        """Heat maps of every method, batch by batch."""
        spec = self.prepared.explainer_spec(self.device)
        probe = Probe(
            model.to(self.device), spec.layer, stages=spec.stages, precision=spec.precision, batch=spec.batch,
            batch_multiple=BATCH_MULTIPLE, normalisation=spec.normalisation, seed=spec.seed,
        )  # fmt: skip
        parts: dict[str, list[FloatArray]] = {label: [] for label in spec.methods}
        for start in range(0, len(self.keys), spec.batch):
            rows = slice(start, start + spec.batch)
            seen = observe(self.pixels_BCHW[rows].to(self.device), spec.methods, probe, self.keys[rows])
            found = explain_evidence(seen.evidence(targets_B[rows].to(self.device)), spec.methods, probe)
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


def _randomisation(sample: _Sample, prepared: PreparedRun, steps: int) -> Iterator[dict[str, object]]:
    model, seed = prepared.loaded.model, prepared.config.explain.seed
    for step, (layers, changed) in enumerate(randomised(model, steps, seed), 1):
        yield from sample.rows("randomisation", step, layers, sample.maps(changed, sample.targets_B))


def _class_swap(sample: _Sample, prepared: PreparedRun) -> Iterator[dict[str, object]]:
    classes, seed = prepared.loaded.classes, prepared.config.explain.seed
    if classes < 2:
        return
    shifts = [int(torch.randint(1, classes, (), generator=generator(seed, key, "class swap"))) for key in sample.keys]
    others_B = (sample.targets_B + torch.tensor(shifts)) % classes
    yield from sample.rows("class_swap", 1, (), sample.maps(prepared.loaded.model, others_B))
