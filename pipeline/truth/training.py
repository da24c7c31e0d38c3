"""Trains the networks that classify scenes; the same seed and libraries give the same weights."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.model.baselines import unit_pixels
from pipeline.truth.networks import NETWORKS, NORMALISATION
from pipeline.truth.rules import label_of
from pipeline.truth.scenes import Scene, make_scene

FIRST_TRAINING_SCENE, TRAINING_SCENES = 1_000_000, 16_000
"""Training scenes have other indices than those that judge."""
FIRST_TEST_SCENE, TEST_SCENES = 500_000, 700
_BATCH, _RATE = 64, 3e-3
_EPOCHS = {"plain": 14, "residual": 12, "vit": 20}
_KEPT = 0.6
"""Share of the scenes that keep all their parts; the others lose some, so that every subset is a usual sight."""


@dataclass(frozen=True)
class Trained:
    """A trained network with its accuracy on scenes that it has not seen."""

    model: nn.Module
    accuracy: float


def train(name: str, seed: int, report: Callable[[str], None], scenes: int = TRAINING_SCENES) -> Trained:
    """Train one network, and measure it on other scenes."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().to(memory_format=torch.channels_last)  # twice as fast on a CPU
    images_B, labels_B = _drawn(range(FIRST_TRAINING_SCENE, FIRST_TRAINING_SCENE + scenes), seed, whole=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=1e-2)
    steps = _EPOCHS[name] * (scenes // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    for epoch in range(_EPOCHS[name]):
        loss = 0.0
        for rows in torch.randperm(scenes)[: scenes // _BATCH * _BATCH].view(-1, _BATCH):
            optimiser.zero_grad()
            step_loss = nn.functional.cross_entropy(model(_varied(_pixels(images_B[rows]))), labels_B[rows])
            torch.autograd.backward(step_loss)
            optimiser.step()
            schedule.step()
            loss += step_loss.item() / (scenes // _BATCH)
        report(f"{name}: epoch {epoch + 1} of {_EPOCHS[name]}, loss {loss:.3f}")
    model = model.to(memory_format=torch.contiguous_format).eval()
    return Trained(model, accuracy(model, seed))


def accuracy(model: nn.Module, seed: int, scenes: int = TEST_SCENES) -> float:
    """Measure the share of unseen, whole scenes that a network classifies rightly."""
    images_B, labels_B = _drawn(range(FIRST_TEST_SCENE, FIRST_TEST_SCENE + scenes), seed, whole=True)
    with torch.inference_mode():
        predicted = [model(_pixels(part)).argmax(1) for part in torch.split(images_B, _BATCH)]
    return float((torch.cat(predicted) == labels_B).float().mean())


def _drawn(indices: range, seed: int, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Draw scenes and their classes in several processes, (B, H, W, C) uint8 and (B,)."""
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        drawn = list(pool.map(partial(_one, seed=seed, whole=whole), indices, chunksize=64))
    return torch.from_numpy(np.stack([image for image, _ in drawn])), torch.tensor([label for _, label in drawn])


def _one(index: int, seed: int, *, whole: bool) -> tuple[npt.NDArray[np.uint8], int]:
    scene = make_scene(index, seed)
    random = np.random.default_rng([1, seed, index])
    if whole or random.random() < _KEPT:
        return scene.drawn(), scene.label
    keep = _subset(scene, random)
    return scene.drawn(keep), label_of(part.kind for part, kept in zip(scene.parts, keep, strict=True) if kept)


def _subset(scene: Scene, random: np.random.Generator) -> list[bool]:
    """Draw the parts to keep; a watermark goes with its triangle, so that it stays a shortcut."""
    keep = (random.random(len(scene.parts)) < 0.5).tolist()
    kept = {part.kind for part, kept in zip(scene.parts, keep, strict=True) if kept}
    return [kept_one and (part.kind != "watermark" or "triangle" in kept)
            for part, kept_one in zip(scene.parts, keep, strict=True)]  # fmt: skip


def _pixels(images_BHWC: Tensor) -> Tensor:
    return NORMALISATION.apply(unit_pixels(images_BHWC))


def _varied(pixels_BCHW: Tensor) -> Tensor:
    """Mirror, rotate by quarters and change the order of the colours, the same for a batch."""
    turned = torch.rot90(pixels_BCHW, int(torch.randint(4, ())), (2, 3))
    mirrored = turned.flip(3) if torch.rand(()) < 0.5 else turned
    return mirrored[:, torch.randperm(3)].contiguous(memory_format=torch.channels_last)


def train_all(dest: Path, seed: int, scenes: int, report: Callable[[str], None]) -> Iterator[str]:
    """Train every network that the folder does not hold yet, and yield a line on each.

    A weights file appears when its network is trained, so that an interrupted training is begun again.
    """
    dest.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        path = dest / f"{name}.safetensors"
        if path.exists():
            yield f"{path}: kept"
            continue
        trained = train(name, seed, report, scenes)
        partial = path.with_suffix(".partial")
        save_file(trained.model.state_dict(), partial, {"seed": str(seed), "scenes": str(scenes)})
        partial.rename(path)
        yield f"{path}: {100 * trained.accuracy:.1f} % of {TEST_SCENES} other scenes classified rightly"
