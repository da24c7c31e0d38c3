"""Chunks of random images and Explainer settings, for tests of the rows that an Explainer makes."""

import numpy as np
import pyarrow as pa

from pipeline.cams import build_methods
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.data.sources import Chunk, Failure, Shard
from pipeline.explain.explainer import Explainer, ExplainerSpec
from pipeline.metrics import build_metrics
from pipeline.model.baselines import Normalisation
from pipeline.model.layout import GridView
from pipeline.model.layout_choice import FoundLayouts
from pipeline.model.outputs import SOFTMAX
from pipeline.settings.targets import TargetRules

SHARD = Shard(0, "s.tar", "tar", "/nowhere/s.tar", 1, "x")
METHODS = ["gradcam", "scorecam"]
METRICS = ["average_drop", "energy_in_box"]


def spec(**changes: object) -> ExplainerSpec:
    fields: dict[str, object] = {
        "layer": "features.3",
        "stages": ("features.3",),
        "methods": build_methods(METHODS),
        "metrics": build_metrics(METRICS),
        "normalisation": Normalisation(),
        "classes": 4,
        "outputs": SOFTMAX,
        "targets": TargetRules(("predicted",)),
        "precision": "fp32",
        "maps": "f32",
        "device": "cpu",
        "batch": 16,
        "size": (16, 16),
        "layouts": FoundLayouts((3, 16, 16), {"features.3": GridView("channels_first", 8, 8)}),
    }
    return ExplainerSpec(**(fields | changes))  # type: ignore[arg-type]


def chunk(
    count: int = 5, *, labels: list[int | None] | None = None, failures: tuple[Failure, ...] = ()
) -> DecodedChunk:
    random = np.random.default_rng(count)
    pixels_NHWC = random.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    labels = labels or [None] * count
    samples = tuple(DecodedSample(f"k{i}", label, ((1.0, 1.0, 9.0, 9.0),), (30, 40)) for i, label in enumerate(labels))
    return DecodedChunk(Chunk(SHARD, 3, last=True), samples, pixels_NHWC, failures)


def rows(explainer: Explainer, decoded: DecodedChunk) -> list[dict[str, object]]:
    return pa.concat_tables(explainer.tables(decoded)).to_pylist()
