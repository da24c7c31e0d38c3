"""Made data and networks set by hand for each task, where what a map must show is known exactly.

`python deploy/runs/tasks/made.py DEST` writes shards, a table of classes, and embeddings of texts and references. A
scene is black, with white parts of several kinds. One filter for each kind responds to its parts alone
(`pipeline.truth.hand`), so that the result for a class depends on nothing but the parts of its kind, and a right map
lies inside of their boxes. Class 0 is the background.

Legend: B images, K kinds, N = K + 1 classes, (H, W) pixels, (u, v) cells.
"""

import io
import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms
from webdataset import ShardWriter

from pipeline.truth.hand import RADIUS, hand, make_hand_scene
from pipeline.truth.scenes import Scene
from pipeline.truth.shapes import KINDS

CLASSES = ("background", *KINDS)
SCENES = 60
_STRIDE, _REACH = 4, 9
"""A cell of the features is 4 pixels wide, and sees parts whose centre is at most 4 pixels from its own."""
_PART, _BACKGROUND = 8.0, 4.0
"""Logits of a pixel near a part, for its class and for the background."""


class FirstColour(nn.Module):
    """Takes the first colour of white parts on black ground: the filters read no other."""

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Return (B, 1, H, W)."""
        return pixels_BCHW[:, :1]


def features() -> nn.Sequential:
    """Build one filter for each kind: 1 in the cells at the centre of a part of this kind, else 0; (B, K, u, v)."""
    filters = hand().get_submodule("features.conv")
    assert isinstance(filters, nn.Conv2d)
    filters.weight, filters.in_channels = nn.Parameter(filters.weight[:, :1].detach().clone()), 1
    pool = nn.MaxPool2d(_REACH, _STRIDE, _REACH // 2 - _STRIDE // 2 + 1)
    return nn.Sequential(OrderedDict(colour=FirstColour(), filters=filters, relu=nn.ReLU(), pool=pool))


class Segmenter(nn.Module):
    """Gives the pixels near a part to its class, and all others to the background."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()

    def forward(self, pixels_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the logits of every pixel, {"out": (B, N, H, W)}."""
        found_BKuv = self.features(pixels_BCHW)
        background_B1uv = torch.full_like(found_BKuv[:, :1], _BACKGROUND)
        logits_BNuv = torch.cat([background_B1uv, _PART * found_BKuv], 1)
        return {"out": functional.interpolate(logits_BNuv, pixels_BCHW.shape[2:])}


class Detector(nn.Module):
    """Puts a box around every part, with a score of 0.91: the tangent keeps the gradient of a response of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()
        self.num_classes, self.score_thresh = len(CLASSES), 0.5

    def forward(self, pixels_BCHW: Tensor) -> list[dict[str, Tensor]]:
        """Return the boxes, labels and scores of each image, as the detectors of torchvision do."""
        return [self._boxes(found_Kuv) for found_Kuv in torch.tanh(1.5 * self.features(pixels_BCHW))]

    def _boxes(self, scores_Kuv: Tensor) -> dict[str, Tensor]:
        kinds_D, rows_D, columns_D = (scores_Kuv > self.score_thresh).nonzero(as_tuple=True)
        scores_D, labels_D = scores_Kuv[kinds_D, rows_D, columns_D], kinds_D + 1
        centres_D2 = (torch.stack([columns_D, rows_D], 1) + 0.5) * _STRIDE
        boxes_D4 = torch.cat([centres_D2 - RADIUS, centres_D2 + RADIUS], 1)
        kept = batched_nms(boxes_D4, scores_D, labels_D, 0.3)
        return {"boxes": boxes_D4[kept], "labels": labels_D[kept], "scores": scores_D[kept]}


class Encoder(nn.Module):
    """Embeds an image as a constant and the mass of each kind in it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = features()

    def forward(self, pixels_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the features and the embedding, {"last_hidden_state": ..., "pooler_output": (B, N)}."""
        found_BKuv = self.features(pixels_BCHW)
        mass_BK = found_BKuv.sum((2, 3))
        embedding_BN = torch.cat([torch.full_like(mass_BK[:, :1], 0.25), mass_BK], 1)
        return {"last_hidden_state": found_BKuv, "pooler_output": embedding_BN}


def scenes(count: int) -> list[Scene]:
    """Draw the first scenes with parts of at least two kinds."""
    found: list[Scene] = []
    index = 0
    while len(found) < count:
        scene = make_hand_scene(index)
        if len({part.kind for part in scene.parts}) > 1:
            found.append(scene)
        index += 1
    return found


def write(dest: Path, count: int = SCENES) -> None:
    """Write the shards, the table of classes, and the embeddings."""
    (dest / "shards").mkdir(parents=True, exist_ok=True)
    with ShardWriter(f"{dest}/shards/made-%03d.tar", maxcount=30, verbose=0, mtime=0) as writer:
        for scene in scenes(count):
            writer.write(_sample(scene))
    lines = ["class_index,class_name", *(f"{index},{name}" for index, name in enumerate(CLASSES))]
    (dest / "classes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    vectors = dict(zip(CLASSES, torch.eye(len(CLASSES)), strict=True))
    save_file({**vectors, "logit_scale": torch.tensor([10.0])}, dest / "texts.safetensors")
    save_file(vectors, dest / "references.safetensors", {"names": json.dumps(CLASSES)})


def _sample(scene: Scene) -> dict[str, object]:
    """Return a scene whose label is the kind of its first part, with a box and a class for each part."""
    labels = [CLASSES.index(part.kind) for part in scene.parts]
    boxes = []
    for part in scene.parts:
        rows, columns = np.nonzero(part.mask_HW)
        boxes.append([int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1])
    file = io.BytesIO()
    Image.fromarray(scene.drawn()).save(file, "PNG")
    facts = {"boxes": boxes, "box_labels": labels}
    return {
        "__key__": scene.key,
        "png": file.getvalue(),
        "cls": str(labels[0]).encode(),
        "json": json.dumps(facts).encode(),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} DEST")
    write(Path(sys.argv[1]))
