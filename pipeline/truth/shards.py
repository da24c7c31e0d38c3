"""Writes scenes as webdataset shards with part masks and exact values, and a run file that explains them."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from PIL import Image
from torch import nn
from webdataset import ShardWriter

from pipeline.errors import ConfigError, nearest
from pipeline.model.baselines import Normalisation, unit_pixels
from pipeline.model.weights import digest
from pipeline.truth import hand, networks
from pipeline.truth.rules import CLASSES
from pipeline.truth.scenes import Scene, make_scene
from pipeline.truth.shapes import SIDE
from pipeline.truth.shapley import Outputs, PartValues, part_values

FEWEST_RIGHT = 0.5
"""A network that classifies fewer scenes than this share rightly has no truth worth writing."""
BOXED = 0.2
"""Parts with at least this share of the largest value are what boxes surround."""
_HAND = "hand"


@dataclass(frozen=True)
class Network:
    """A network with the scenes that it classifies and the values that a run file needs.

    Attributes:
        name: of `networks.NETWORKS`, or hand.
        model: the network, ready to classify.
        scene: function from index and seed to a scene.
        mean, std: normalisation of its input.
    """

    name: str
    model: nn.Module
    scene: Callable[[int, int], Scene]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Path | None

    def pixels(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Convert images (B, H, W, C) in 0 .. 255 to the input of the network, (B, C, H, W)."""
        return Normalisation(self.mean, self.std).apply(unit_pixels(torch.from_numpy(images)))

    @property
    def outputs(self) -> Outputs:
        """Return the function from images to logits that exact values are computed from."""

        def logits(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
            with torch.inference_mode():
                found: npt.NDArray[np.float64] = self.model(self.pixels(images)).double().numpy()
            return found

        return logits


@dataclass(frozen=True)
class Known:
    """A scene that a network classifies rightly, with the exact values of its parts."""

    scene: Scene
    values: PartValues


NAMES = (*networks.NETWORKS, _HAND)


def open_network(name: str, weights: Path | None = None) -> Network:
    """Open a network by name, with the weights of the package or of a file.

    Raises:
        ConfigError: there is no such network, or the file does not hold its weights.
    """
    if name not in NAMES:
        raise ConfigError.one("--network", f"unknown network '{name}'", nearest(name, NAMES))
    if name == _HAND and weights is not None:
        raise ConfigError.one("--weights", "the weights of 'hand' are set by hand", "leave the option out")
    if name == _HAND:
        return Network(name, hand.hand(), hand.make_hand_scene, (0.0,) * 3, (1.0,) * 3, None)
    path = networks.weights_path(name) if weights is None else weights
    return Network(
        name,
        networks.load_network(name, path),
        make_scene,
        networks.NORMALISATION.mean,
        networks.NORMALISATION.std,
        path,
    )


def known_scenes(network: Network, seed: int, first: int = 0) -> Iterator[Known | None]:
    """Yield scene after scene with its exact values; None for one that the network classifies wrongly."""
    index = first
    while True:
        scene = network.scene(index, seed)
        values = part_values(scene, network.outputs)
        yield Known(scene, values) if values.predicted == scene.label else None
        index += 1


def right_scenes(network: Network, count: int, seed: int) -> tuple[list[Known], float]:
    """Return the first scenes that a network classifies rightly, and the share of those tried.

    Raises:
        ConfigError: it classifies less than `FEWEST_RIGHT` of them rightly.
    """
    right: list[Known] = []
    tried = 0
    for known in known_scenes(network, seed):
        tried += 1
        if known is not None:
            right.append(known)
        if len(right) == count or (tried >= 2 * count and len(right) < FEWEST_RIGHT * tried):
            break
    if len(right) < count:
        raise ConfigError.one(
            "--network",
            f"'{network.name}' classifies {len(right)} of {tried} scenes rightly; the values of the others say nothing "
            "of what its maps should show",
            "train it longer (camatlas truth train), or judge with another network",
        )
    return right, len(right) / tried


def write_scenes(dest: Path, network: Network, scenes: int, seed: int, scenes_per_shard: int) -> float:
    """Write shards, class table and run file into a new folder; return the share of scenes classified rightly.

    The folder appears when it is complete.

    Raises:
        ConfigError: the folder exists and is not empty, or the network classifies too few scenes rightly.
    """
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ConfigError.one("DEST", f"'{dest}' exists and is not empty", "choose a new folder")
    known, share = right_scenes(network, scenes, seed)
    partial = dest.with_name(f".{dest.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "shards").mkdir(parents=True)
    sha256 = digest(network.model)
    with ShardWriter(f"{partial}/shards/scenes-%03d.tar", maxcount=scenes_per_shard, verbose=0, mtime=0) as writer:
        for one in known:
            writer.write(_sample(one, sha256))
    lines = ["class_index,class_name", *(f"{index},{name}" for index, name in enumerate(CLASSES))]
    (partial / "classes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = yaml.safe_dump(run_file(dest, network), sort_keys=False)
    (partial / "run.yaml").write_text(text, encoding="utf-8")
    if dest.exists():
        dest.rmdir()
    partial.rename(dest)
    return share


def run_file(dest: Path, network: Network) -> dict[str, Any]:
    """Return a run file that explains the shards with a few methods and the scores against the truth."""
    model: dict[str, Any] = {"name": f"pipeline.truth.networks:{network.name}", "weights": str(network.weights)}
    if network.weights is None:
        model = {"name": "pipeline.truth.hand:hand"}
    preprocess = {"resize": None, "crop": SIDE, "mean": list(network.mean), "std": list(network.std)}
    return {
        "data": {"shards": f"{dest}/shards", "classes": f"{dest}/classes.csv", "chunk_images": 50},
        "model": model | {"preprocess": preprocess},
        "explain": {
            "targets": "label",
            "methods": ["gradcam", "gradcam_pp", "integrated_gradcam", "scorecam", "shuffled_gradcam"],
            "metrics": ["mass", "rank", "sign", "average_drop", "insertion", "deletion"],
        },
        "output": {"path": f"{dest}/run"},
    }


def boxes_of(known: Known) -> list[tuple[float, float, float, float]]:
    """Return the boxes around the parts that count, (x0, y0, x1, y1) in pixels."""
    largest = known.values.logit_P.max()
    boxes = []
    for part, value in zip(known.scene.parts, known.values.logit_P, strict=True):
        if value > 0 and value >= BOXED * largest:
            rows, columns = np.nonzero(part.mask_HW)
            boxes.append((float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)))
    return boxes


def _sample(known: Known, sha256: str) -> dict[str, object]:
    scene = known.scene
    parts = {
        "target": scene.label,
        "values": known.values.logit_P.tolist(),
        "confidence_values": known.values.confidence_P.tolist(),
        "kinds": [part.kind for part in scene.parts],
        "weights": sha256,
    }
    facts = {"rule": scene.rule, "boxes": boxes_of(known), "parts": parts}
    return {
        "__key__": scene.key,
        "png": _png(scene.drawn()),
        "parts.png": _png(scene.index_HW),
        "cls": str(scene.label).encode(),
        "json": json.dumps(facts).encode(),
    }


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
