"""Methods that read attention in a run: rows as in a notebook, and refusals before the work."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from inline import publish_all
from nets import TinyVit
from PIL import Image

import pipeline
from pipeline.errors import ConfigError
from pipeline.model.baselines import Normalisation
from pipeline.run.paths import absolute
from pipeline.run.preflight import net_shape, prepare
from pipeline.settings.run_file import RunConfig

METHODS = ["attention_rollout", "attention_gradient", "legrad", "raw_attention", "gradcam"]


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return {
        "data": {"shards": str(folder)},
        "model": {"name": "nets:TinyVit", "layer": "blocks.1", "preprocess": {"resize": 16, "crop": 16}},
        "explain": {"methods": METHODS, "metrics": ["average_drop"]},
        "compute": {"device": "cpu", "batch": 16},
        "output": {"path": str(tmp_path / "run"), "maps": "f32"},
    }


def test_rows_hold_the_maps_of_a_notebook(fields: dict[str, Any]) -> None:
    rows = pq.read_table(sorted(publish_all(fields).glob("part-*.parquet"))).to_pylist()
    assert [row["error_code"] for row in rows] == [None] * 15
    pixels = [np.asarray(Image.open(f"{fields['data']['shards']}/{name}.png")) for name in "abc"]
    pixels_BCHW = Normalisation().apply(torch.tensor(np.stack(pixels)).permute(0, 3, 1, 2) / 255)
    maps = pipeline.explain(TinyVit(), pixels_BCHW, methods=METHODS, layer="blocks.1").maps
    for row in rows:
        stored_uv = np.frombuffer(row["map"], np.float32).reshape(row["map_height"], row["map_width"])
        expected_uv = maps[row["method"]]["abc".index(row["image_key"][0])]
        torch.testing.assert_close(torch.tensor(stored_uv), expected_uv, rtol=1e-4, atol=1e-6)


def test_the_attention_is_found_once_before_the_run(fields: dict[str, Any]) -> None:
    run = prepare(absolute(RunConfig.model_validate(fields)))
    known = run.loaded.layouts.attention
    assert known is not None
    assert (known.layers, known.read, net_shape(run.loaded).attention_layers) == (3, (0,), 3)
    layouts = run.explainer_spec("cpu", workers=1).layouts
    assert layouts == run.loaded.layouts


def test_runs_that_do_not_ask_find_out_nothing(fields: dict[str, Any]) -> None:
    fields["explain"]["methods"] = ["gradcam"]
    run = prepare(absolute(RunConfig.model_validate(fields)))
    assert run.loaded.layouts.attention is None
    assert net_shape(run.loaded).attention_layers == 0


def test_a_network_without_attention_is_refused_beside_other_mistakes(fields: dict[str, Any]) -> None:
    fields["model"] |= {"name": "nets:ToyNet", "layer": "features.3"}
    fields["explain"] |= {"methods": ["attention_rollout", "cam"]}
    with pytest.raises(ConfigError) as caught:
        prepare(absolute(RunConfig.model_validate(fields)))
    assert [str(mistake) for mistake in caught.value.mistakes][1:] == [
        "explain.methods: 'attention_rollout' needs attention between the tokens of an image, but the model has no "
        "attention (choose other methods)"
    ]
    assert "'cam' needs a head" in str(caught.value)
