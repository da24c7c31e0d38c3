"""What the pages of the documentation may ask for with `<!-- with: NAME -->`: folders, or names of Python."""

import csv
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import yaml
from handmade import RunMaker
from inline import publish_all

from pipeline.demo.data import run_file, write_demo
from pipeline.demo.scenes import make_scene
from schemas.manifest import RunIdentity

_IMAGES = 6
_NETWORK = """
import torch
from safetensors.torch import load_file
from torchvision.transforms import v2

from pipeline.demo.network import INPUT, MEAN_STD, build

model = build().eval()
model.load_state_dict({name: tensor.float() for name, tensor in load_file("my_model.safetensors").items()})
transform = v2.Compose(
    [v2.Resize((INPUT, INPUT)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*MEAN_STD)]
)
"""


def my_images() -> Mapping[str, Any]:
    """Make a folder of drawn images with labels and boxes."""
    folder = Path("my_images")
    folder.mkdir()
    labels, boxes = [("filename", "class_index")], [("filename", "x0", "y0", "x1", "y1")]
    for index in range(_IMAGES):
        scene, name = make_scene(index), f"image_{index}.png"
        scene.image.save(folder / name)
        labels.append((name, str(scene.label)))
        boxes.append((name, *map(str, scene.box_xyxy)))
    for file, rows in {"labels.csv": labels, "boxes.csv": boxes}.items():
        with (folder / file).open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows(rows)
    return {}


def my_model() -> Mapping[str, Any]:
    """Write weights, and a module `my_network` with the network, its builder and a transform."""
    shutil.copy(str(files("pipeline.demo") / "network.safetensors"), "my_model.safetensors")
    Path("my_network.py").write_text(_NETWORK, encoding="utf-8")
    return {}


def my_run() -> Mapping[str, Any]:
    """Copy a finished run of the demo's network over a few of its images."""
    shutil.copytree(run_of_the_demo(), "my_run")
    return {}


def copies_elsewhere() -> Mapping[str, Any]:
    """Copy the shards and weights of `my_run` to another place, and write its run file, whose paths are the first."""
    folder = run_of_the_demo().parent
    shutil.copytree(folder / "shards", "elsewhere/shards")
    shutil.copy(str(files("pipeline.demo") / "network.safetensors"), "elsewhere")
    Path("run.yaml").write_text(yaml.safe_dump(_fields_of_the_demo(folder)), encoding="utf-8")
    return {}


def atlas() -> Mapping[str, Any]:
    """Make a folder of two runs, of two models over the same images."""
    for model in ("resnet50", "mobilenet_v2"):
        _OfModel(Path("atlas") / model).complete()
    return {}


def model() -> Mapping[str, Any]:
    """Give the names `model`, `pixels` and `layer`: a small ResNet and four images."""
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    pixels = torch.rand(4, 3, 64, 64)
    return {"model": ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10).eval(), "pixels": pixels, "layer": "layer4"}


PROVIDED: dict[str, Callable[[], Mapping[str, Any]]] = {
    made.__name__: made for made in (my_images, my_model, my_run, copies_elsewhere, atlas, model)
}


class _OfModel(RunMaker):
    """A run whose model is named after its folder."""

    @property
    def identity(self) -> RunIdentity:
        """Return the identity of the run, with the model's name."""
        return super().identity.model_copy(update={"model": {"name": f"torchvision/{self.folder.name}"}})


@cache
def run_of_the_demo() -> Path:
    """Explain a few images of the demo once for all pages; the images stay where they are."""
    folder = Path(mkdtemp(prefix="camatlas-docs-"))
    write_demo(folder, scenes=12, scenes_per_shard=6)
    return publish_all(_fields_of_the_demo(folder))


def _fields_of_the_demo(folder: Path) -> dict[str, Any]:
    explain = {
        "methods": ["gradcam", "gradcam_pp", {"scorecam": {"channels": 8}}],
        "metrics": ["average_drop", "insertion", "pointing_game", "energy_in_box"],
    }
    return run_file(folder) | {"explain": explain}
