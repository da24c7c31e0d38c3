"""Writes the data of the demonstration: shards of scenes, class names and a run file."""

import io
import json
from importlib.resources import files
from pathlib import Path

import yaml
from webdataset import ShardWriter

from pipeline.demo.network import INPUT, LAYER, MEAN_STD
from pipeline.demo.scenes import CLASSES, make_scene

SCENES, SCENES_PER_SHARD = 240, 60


def write_demo(folder: Path, scenes: int = SCENES, scenes_per_shard: int = SCENES_PER_SHARD) -> Path:
    """Write shards, class names and run file into a folder, and return the path of the run file."""
    shards = folder / "shards"
    shards.mkdir(parents=True, exist_ok=True)
    with ShardWriter(f"{shards}/scenes-%03d.tar", maxcount=scenes_per_shard, verbose=0, mtime=0) as writer:
        for index in range(scenes):
            writer.write(_sample(index))
    lines = ["class_index,class_name", *(f"{index},{name}" for index, name in enumerate(CLASSES))]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run_file(folder), sort_keys=False), encoding="utf-8")
    return path


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
