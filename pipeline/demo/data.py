"""Writes the data of the demonstration: shards of scenes, class names and a run file."""

import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import yaml
from webdataset import ShardWriter

from pipeline.demo.network import INPUT, LAYER, MEAN_STD
from pipeline.demo.scenes import CLASSES, make_scene
from pipeline.errors import ConfigError

SCENES, SCENES_PER_SHARD = 240, 60


def write_demo(folder: Path, scenes: int = SCENES, scenes_per_shard: int = SCENES_PER_SHARD) -> Path:
    """Write shards, class names and run file into a folder, and return the path of the run file.

    Raises:
        ConfigError: the folder contains other files of these names, which are never overwritten.
    """
    shards = folder / "shards"
    lines = ["class_index,class_name", *(f"{index},{name}" for index, name in enumerate(CLASSES))]
    texts = {
        "classes.csv": "\n".join(lines) + "\n",
        "run.yaml": yaml.safe_dump(run_file(folder), sort_keys=False),
    }
    _refuse_other_files(folder, texts)
    shards.mkdir(parents=True, exist_ok=True)
    with ShardWriter(f"{shards}/scenes-%03d.tar", maxcount=scenes_per_shard, verbose=0, mtime=0) as writer:
        for index in range(scenes):
            writer.write(_sample(index))
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "run.yaml"


def _refuse_other_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Raise ConfigError if the folder contains what an earlier demonstration has not written."""
    other = [str(folder / name) for name, text in texts.items() if not _is_same(folder / name, text)]
    run, shards = folder / "run", folder / "shards"
    if run.exists() and not (run / "run.json").exists() and any(run.iterdir()):
        other.append(str(run))
    if shards.exists():
        other += [str(path) for path in sorted(shards.iterdir()) if not path.match("scenes-[0-9][0-9][0-9].tar")]
    if other:
        raise ConfigError.one(
            "DIR", f"'{other[0]}' was not written by the demonstration, and is not overwritten", "choose another folder"
        )


def _is_same(path: Path, text: str) -> bool:
    return not path.exists() or path.read_bytes() == text.encode()


def run_file(folder: Path) -> dict[str, object]:
    """Return the run file of the demonstration, with a few methods and metrics."""
    return {
        "data": {"shards": f"{folder}/shards", "classes": f"{folder}/classes.csv", "chunk_images": 30},
        "model": {
            "name": "pipeline.demo.network:build",
            "weights": str(files("pipeline.demo") / "network.safetensors"),
            "layer": LAYER,
            "preprocess": {"resize": None, "crop": INPUT, "mean": list(MEAN_STD[0]), "std": list(MEAN_STD[1])},
        },
        "explain": {
            "targets": "predicted",
            "methods": ["gradcam", "gradcam_pp", "integrated_gradcam", "scorecam", "iscam"],
            "metrics": [
                "average_drop",
                "increase",
                {"pointing_game": {"tolerance": 0}},
                "energy_in_box",
                "box_removed_confidence",
                "box_only_confidence",
            ],
        },
        "output": {"path": f"{folder}/run"},
        "about": {
            "owner": "the camatlas demonstration",
            "intended_use": "to show what a report says of drawn scenes",
            "not_intended": "any other use",
            "limitations": "a watermark is planted in the images of the class 'star', and the network relies on it",
        },
    }


def _sample(index: int) -> dict[str, object]:
    scene = make_scene(index)
    file = io.BytesIO()
    scene.image.save(file, "JPEG", quality=90)
    return {
        "__key__": f"scene_{index:05d}",
        "jpg": file.getvalue(),
        "cls": str(scene.label).encode(),
        "json": json.dumps({"boxes": [scene.box_xyxy]}).encode(),
    }
