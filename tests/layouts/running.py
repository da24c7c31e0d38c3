"""Runs a layout in one process: everything that a run does, without a cluster."""

import io
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from layouts.base import Truth
from layouts.net import model_section
from PIL import Image

from pipeline.data.decode import decode_chunk
from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.sources import Sample, chunked, read_shard
from pipeline.data.sources.box_formats import in_pixels
from pipeline.data.sources.shards import Boxes
from pipeline.errors import ConfigError
from pipeline.explain.explainer import Explainer
from pipeline.run.preflight import prepare
from pipeline.run.worker import footer_of, sorted_rows
from pipeline.settings.run_file import RunConfig, parse_config
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import publish_part

CLASSES = {"imagenet-1k": 1000}


def fields_of(folder: Path | str, truth: Truth, output: Path | str) -> dict[str, Any]:
    """Return the run file of a layout in a folder, or at the URL of one."""
    classes = CLASSES.get(str(truth.data.get("classes")), 10)
    stated = {name: _filled(value, folder) for name, value in truth.data.items()}
    data = {"shards": str(folder)} | {name: value for name, value in stated.items() if value is not None}
    if stated.get("shards", "") is None:
        del data["shards"]
    model = model_section() | {"arguments": {"classes": classes}}
    return {
        "data": data,
        "model": model,
        "explain": {"methods": ["gradcam"]},
        "compute": {"device": "cpu"},
        "output": {"path": str(output)},
    }


def config_of(folder: Path, truth: Truth, output: Path) -> RunConfig:
    """Return the settings of a layout; mistakes in them are raised, as every verb raises them."""
    config, mistakes = parse_config(fields_of(folder, truth, output))
    if mistakes:
        raise ConfigError(mistakes)
    return config


def _filled(value: Any, folder: Path | str) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(inner, folder) for name, inner in value.items()}
    return value.replace("{}", str(folder)) if isinstance(value, str) else value


def run_layout(folder: Path, truth: Truth, output: Path) -> dict[str, Boxes]:
    """Explain all images of a layout into `output`; return the boxes as read, which rows do not hold."""
    run = prepare(config_of(folder, truth, output))
    take_ownership(run.store, run.manifest)
    boxes: dict[str, Boxes] = {}
    explainer = Explainer(run.loaded.model, run.explainer_spec("cpu", 1))
    with closing(DecodeSandbox()) as sandbox:
        for shard in run.shards:
            for chunk in chunked(read_shard(shard, run.reading), shard, run.config.data.chunk_images):
                boxes |= {sample.key: found for sample in chunk.samples if (found := _boxes(sample))}
                decoded = decode_chunk(chunk, run.loaded.preprocess, run.limits, sandbox.frame)
                table = sorted_rows(explainer.tables(decoded))
                publish_part(run.store, table, footer_of(decoded, run.manifest.run_id))
    return boxes


def _boxes(sample: Sample) -> Boxes | None:
    """Return the boxes of an image in pixels."""
    if not sample.boxes_relative:
        return sample.boxes_xyxy
    with Image.open(io.BytesIO(sample.image)) as image:
        return in_pixels(sample.boxes_xyxy, *image.size)
