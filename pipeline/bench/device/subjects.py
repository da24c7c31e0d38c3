"""The networks and images that are measured, made without any file but those of the package.

Legend: N images, C colours, (H, W) pixels.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.data.decode import DecodedChunk, DecodedSample
from pipeline.data.sources import Chunk, Shard
from pipeline.demo.scenes import make_scene
from pipeline.model.baselines import Normalisation, unit_pixels
from pipeline.model.trial import LoadedModel, tried
from pipeline.settings.libraries import import_torchvision
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess
from pipeline.truth.networks import NORMALISATION, load_network, weights_path
from pipeline.truth.shapes import SIDE

NETWORKS = ("residual", "vit")
"""Small trained networks on which values are compared: the first for all methods but those of attention."""
_DIFFERENT = 32
"""Different scenes; more images repeat them."""


def trained(name: str) -> LoadedModel:
    """Load a small network of the package, with its weights."""
    preprocess = Preprocess(SIDE, None, mean=NORMALISATION.mean, std=NORMALISATION.std)
    return tried(load_network(name, weights_path(name)), ModelConfig(name=name), preprocess, "")


def untrained(name: str, side: int) -> LoadedModel:
    """Make one of torchvision's networks with random weights, always the same."""
    import_torchvision()
    from torchvision.models import get_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_model(name).eval()
    return tried(model, ModelConfig(name=f"torchvision/{name}"), Preprocess(side, None), "")


def scenes(count: int, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Draw scenes (N, side, side, 3)."""
    drawn = [np.asarray(make_scene(index).image.resize((side, side))) for index in range(min(count, _DIFFERENT))]
    return np.stack(drawn)[np.arange(count) % len(drawn)]


def inputs(loaded: LoadedModel, count: int) -> Tensor:
    """Return normalised scenes (N, C, H, W), on the CPU."""
    preprocess = loaded.preprocess
    pixels_NHWC = torch.from_numpy(scenes(count, preprocess.size[0]))
    return Normalisation(preprocess.mean, preprocess.std).apply(unit_pixels(pixels_NHWC))


def chunk_of(count: int, side: int) -> DecodedChunk:
    """Make a chunk of scenes, as a reader hands it to a worker; without labels, their boxes are of any class."""
    box = (0.2 * side, 0.2 * side, 0.7 * side, 0.8 * side)
    samples = tuple(DecodedSample(f"image-{i:06d}", None, (box,), (side, side)) for i in range(count))
    shard = Shard(0, "scenes.tar", "tar", "/scenes.tar", 1, "scenes")
    return DecodedChunk(Chunk(shard, 0, last=True), samples, scenes(count, side), ())
