"""A small network that is trained on the spot, on one core, in seconds; the same weights for the same seed."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from planted.scenes import CLASSES, SIDE, Float, Int, Pixels, Scenes
from safetensors.torch import save_file
from torch import Tensor, nn

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
LAYER = "features.relu4"
"""The target layer, (64, 8, 8)."""

BATCH, RATE = 64, 4e-3
COVERED = 0.15
"""Of the training images so many have a grey box on their object, and as many one elsewhere."""
_LAYERS = ((32, 5, 4, 2), (32, 3, 1, 1), (48, 3, 2, 1), (64, 3, 1, 1))
"""Channels, kernel, stride and padding of the convolutions."""


def build() -> nn.Module:
    """Build the network without its weights: four convolutions, global average pooling, one linear layer."""
    features: OrderedDict[str, nn.Module] = OrderedDict()
    channels = 3
    for number, (wide, kernel, stride, padding) in enumerate(_LAYERS, start=1):
        features[f"conv{number}"] = nn.Conv2d(channels, wide, kernel, stride, padding, bias=False)
        features[f"norm{number}"] = nn.BatchNorm2d(wide)
        features[f"relu{number}"] = nn.ReLU(inplace=True)
        channels = wide
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES)))
    return nn.Sequential(OrderedDict(features=nn.Sequential(features), head=head))


def trained(scenes: Scenes, seed: int, epochs: int) -> nn.Module:
    """Train the network; gives it in evaluation mode.

    Grey boxes cover some objects and the label stays, as random erasing does it. So the network learns that a grey box
    is no shape, and answers by what else tells the class: by nothing, where nothing else does.
    """
    pixels_BCHW, boxes_B4 = inputs(scenes.pixels_NHW3), torch.from_numpy(scenes.boxes_N4)
    labels_B = torch.from_numpy(scenes.labels_N)
    batches = len(scenes) // BATCH
    with _reproducibly(seed):
        model = build().to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * batches)
        for _ in range(epochs):
            for rows in torch.randperm(len(scenes))[: batches * BATCH].view(-1, BATCH):
                optimiser.zero_grad()
                logits_BN = model(_partly_covered(pixels_BCHW[rows], boxes_B4[rows]))
                nn.functional.cross_entropy(logits_BN, labels_B[rows]).backward()
                optimiser.step()
                schedule.step()
    return model.to(memory_format=torch.contiguous_format).eval()


def save(model: nn.Module, path: Path) -> Path:
    """Write the weights."""
    save_file(model.state_dict(), path)
    return path


def inputs(pixels_NHW3: Pixels) -> Tensor:
    """Normalise images, (B, 3, H, W)."""
    pixels_BCHW = torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2).float().div(255)
    normalised_BCHW = (pixels_BCHW - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return normalised_BCHW.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def confidences(model: nn.Module, scenes: Scenes, *, removed: bool = False) -> Float:
    """Softmax of the model for every scene, (N, classes); `removed` puts a grey box in the place of the object."""
    pixels_BCHW = inputs(scenes.pixels_NHW3)
    if removed:
        pixels_BCHW = covered(pixels_BCHW, torch.from_numpy(scenes.boxes_N4))
    return model(pixels_BCHW).softmax(1).numpy()


def answers(model: nn.Module, scenes: Scenes) -> Int:
    """The class that the model sees in every scene, (N,)."""
    return confidences(model, scenes).argmax(1)


def covered(pixels_BCHW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Cover boxes in mean grey; one of no width covers nothing."""
    x0, y0, x1, y1 = boxes_B4[:, :, None, None].unbind(1)
    columns, rows = torch.arange(SIDE), torch.arange(SIDE)[:, None]
    inside_BHW = (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    return pixels_BCHW.masked_fill(inside_BHW[:, None], 0)


def _partly_covered(pixels_BCHW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Cover some objects, and in other images a box of the same size anywhere."""
    lot_B = torch.rand(len(pixels_BCHW))
    shift_B4 = torch.randint(-SIDE // 2, SIDE // 2 + 1, (len(pixels_BCHW), 2)).repeat(1, 2)
    moved_B4 = torch.where((lot_B < COVERED)[:, None], boxes_B4, boxes_B4 + shift_B4)
    return covered(pixels_BCHW, torch.where((lot_B < 2 * COVERED)[:, None], moved_B4, 0))


@contextmanager
def _reproducibly(seed: int) -> Iterator[None]:
    """Draw from this seed, on one thread: the order of additions depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
