"""Makes the paths of a run file absolute; needs no torch."""

import os
from pathlib import Path
from typing import Any

from pipeline.model.transformers_source import PREFIX, local_folder
from pipeline.settings.explain import Spec
from pipeline.settings.model import ModelConfig
from pipeline.settings.run_file import RunConfig

_STORED = "stored"
"""The name of the method whose maps are read from a path; importing its class would import torch."""


def absolute(config: RunConfig) -> RunConfig:
    """Make local paths absolute: workers and later readers of the run have other working directories."""
    data = config.data
    shards = [data.shards] if isinstance(data.shards, str) else data.shards
    methods = [_absolute_method(spec) for spec in config.explain.methods]
    return config.model_copy(
        update={
            "data": data.model_copy(
                update={
                    "shards": [absolute_path(shard) for shard in shards] if data.shards else "",
                    "manifest": data.manifest and absolute_path(data.manifest),
                    "root": data.root and absolute_path(data.root),
                    "labels": data.labels and absolute_path(data.labels),
                    "boxes": data.boxes and absolute_path(data.boxes),
                    "keys": absolute_path(data.keys) if isinstance(data.keys, str) else data.keys,
                    "classes": data.classes and absolute_path(data.classes, "imagenet-1k"),
                }
            ),
            "explain": config.explain.model_copy(update={"methods": methods}),
            "model": config.model.model_copy(update=_absolute_files(config.model)),
            "output": config.output.model_copy(update={"path": absolute_path(config.output.path)}),
        }
    )


def absolute_path(path: str, name: str = "") -> str:
    """Make a path absolute, without `..`; leave a URL and the built-in name `name` unchanged."""
    return path if "://" in path or path in ("", name) else os.path.abspath(Path(path).expanduser())  # noqa: PTH100


def _absolute_files(model: ModelConfig) -> dict[str, str | None]:
    """Make the paths of a model's files absolute; names of weights, which have no dot, stay as they are."""
    named = bool(model.weights and "." not in model.weights)
    return {
        "name": _absolute_model(model.name),
        "weights": model.weights if named else model.weights and absolute_path(model.weights),
        "text_embeddings": model.text_embeddings and absolute_path(model.text_embeddings),
        "reference_embeddings": model.reference_embeddings and absolute_path(model.reference_embeddings),
    }


def _absolute_model(name: str) -> str:
    """Make the path of a folder of transformers absolute; other names stay as they are."""
    folder = local_folder(name)
    return name if folder is None else f"{PREFIX}{folder}"


def _absolute_method(spec: Spec) -> Spec:
    """Make the path of stored maps absolute; other methods stay as they are."""
    options: Any = spec.get(_STORED) if isinstance(spec, dict) else None
    if not isinstance(options, dict) or not isinstance(options.get("path"), str):
        return spec
    return {_STORED: {**options, "path": absolute_path(options["path"])}}
