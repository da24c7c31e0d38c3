"""A small network, trained in seconds on one core; the same seed gives the same weights."""

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
"""Share of the training images with a grey box on their object; an equal share has one elsewhere."""
_LAYERS = ((32, 5, 4, 2), (32, 3, 1, 1), (48, 3, 2, 1), (64, 3, 1, 1))
"""Channels, kernel, stride and padding of the convolutions."""


def build() -> nn.Module:
    """Build the untrained network: four convolutions, global average pooling, one linear layer."""
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
    """Train the network, and return it in evaluation mode.

    Grey boxes cover some objects while the label stays, as in random erasing. So the network learns that a grey box is
    not a shape. Without a shape it predicts the class from other evidence, or at random if there is none.
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
    """Save the weights as safetensors."""
    save_file(model.state_dict(), path)
    return path


def inputs(pixels_NHW3: Pixels) -> Tensor:
    """Normalise images; returns (B, 3, H, W)."""
    pixels_BCHW = torch.from_numpy(pixels_NHW3).permute(0, 3, 1, 2).float().div(255)
    normalised_BCHW = (pixels_BCHW - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return normalised_BCHW.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def confidences(model: nn.Module, scenes: Scenes, *, removed: bool = False) -> Float:
    """Return the softmax for every scene, (N, classes); `removed` covers the object with a grey box."""
    pixels_BCHW = inputs(scenes.pixels_NHW3)
    if removed:
        pixels_BCHW = covered(pixels_BCHW, torch.from_numpy(scenes.boxes_N4))
    return model(pixels_BCHW).softmax(1).numpy()


def predictions(model: nn.Module, scenes: Scenes) -> Int:
    """Return the predicted class of every scene, (N,)."""
    return confidences(model, scenes).argmax(1)


def covered(pixels_BCHW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Fill boxes with the mean grey; a box of zero width covers nothing."""
    x0, y0, x1, y1 = boxes_B4[:, :, None, None].unbind(1)
    columns, rows = torch.arange(SIDE), torch.arange(SIDE)[:, None]
    inside_BHW = (columns >= x0) & (columns < x1) & (rows >= y0) & (rows < y1)
    return pixels_BCHW.masked_fill(inside_BHW[:, None], 0)


def _partly_covered(pixels_BCHW: Tensor, boxes_B4: Tensor) -> Tensor:
    """Cover the object of some images, and a random box of the same size in others."""
    draw_B = torch.rand(len(pixels_BCHW))
    shift_B4 = torch.randint(-SIDE // 2, SIDE // 2 + 1, (len(pixels_BCHW), 2)).repeat(1, 2)
    moved_B4 = torch.where((draw_B < COVERED)[:, None], boxes_B4, boxes_B4 + shift_B4)
    return covered(pixels_BCHW, torch.where((draw_B < 2 * COVERED)[:, None], moved_B4, 0))


@contextmanager
def _reproducibly(seed: int) -> Iterator[None]:
    """Seed PyTorch and use one thread, because the order of additions depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
