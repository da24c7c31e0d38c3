"""Models of other tasks than classification on the simulated device."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import task_nets
import torch
from device.simulated import simulated
from explaining import SHARD, spec
from safetensors.torch import save_file

from pipeline.cams import build_methods
from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.data.sources import Chunk
from pipeline.explain.explainer import Explainer
from pipeline.metrics import build_metrics
from pipeline.model.zoo import load_model
from pipeline.settings.model import ModelConfig

SIDE = task_nets.SIDE
PREPROCESS = {"resize": None, "crop": SIDE, "mean": [0.0] * 3, "std": [1.0] * 3}
TASKS: dict[str, dict[str, object]] = {
    "segmentation": {"name": "task_nets:Segmenter", "task": "segmentation"},
    "detection": {"name": "task_nets:Detector", "task": "detection"},
    "similarity": {"name": "task_nets:Encoder", "task": "similarity"},
    "zero shot": {"name": "task_nets:Encoder"},
}


def explained(fields: dict[str, object], device: str) -> pa.Table:
    with torch.random.fork_rng():
        torch.manual_seed(3)  # the weights of the network
        loaded = load_model(ModelConfig.model_validate(fields))
    methods, metrics = ("recipro_cam", "average_drop") if loaded.outputs.has_confidences else ("hirescam", "sparsity")
    chosen = spec(
        layer=loaded.layer, stages=loaded.stages, methods=build_methods(["gradcam", methods]),
        metrics=build_metrics([metrics]),
        classes=loaded.classes, outputs=loaded.outputs, layouts=loaded.layouts, size=(SIDE, SIDE), device=device,
    )  # fmt: skip
    pixels_NHWC = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    samples = tuple(DecodedSample(f"k{i}", None, (), (SIDE, SIDE)) for i in range(3))
    chunk = DecodedChunk(Chunk(SHARD, 0, last=True), samples, pixels_NHWC, ())
    return pa.concat_tables(Explainer(loaded.model, chosen).tables(chunk))


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_those_of_the_cpu(task: str, tmp_path: Path) -> None:
    rows_ND = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    vectors = dict(zip(("cat", "dog", "bird"), rows_ND, strict=True))
    save_file(vectors | {"logit_scale": torch.tensor([10.0])}, tmp_path / "vectors.safetensors")
    fields = {"weights": None, "layer": "body.3", "preprocess": PREPROCESS, **TASKS[task]}
    if task == "similarity":
        save_file(vectors, tmp_path / "vectors.safetensors")
        fields["reference_embeddings"] = str(tmp_path / "vectors.safetensors")
    if task == "zero shot":
        fields["text_embeddings"] = str(tmp_path / "vectors.safetensors")
    expected = explained(fields, "cpu")
    with simulated():
        found = explained(fields, "cuda")
    assert found.equals(expected)
    assert found["error_code"].null_count == len(found)
