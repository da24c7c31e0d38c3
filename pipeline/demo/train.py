"""Trains the network of the demonstration: `python -m pipeline.demo.train [WEIGHTS]`.

The training scenes are not those of the demonstration. Every star carries the watermark, so that the network learns to
rely on it. Prints the accuracy with and without the watermark. Takes about ten minutes on two cores.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.demo.network import INPUT, MEAN_STD, build
from pipeline.demo.scenes import CLASSES, WATERMARKED, Scene, make_scene
from pipeline.model.baselines import Normalisation

WEIGHTS = Path(__file__).with_name("network.safetensors")
FIRST_TRAINING_SCENE, TRAINING_SCENES = 100_000, 12_000
FIRST_TEST_SCENE, TEST_SCENES = 50_000, 1_200
EPOCHS, BATCH, RATE = 24, 64, 2e-3


def train() -> nn.Module:
    """Train the network and return it; the same libraries give the same weights on every machine."""
    torch.manual_seed(0)
    model = build()
    pixels_BCHW, labels_B = tensors(make_scene(FIRST_TRAINING_SCENE + i) for i in range(TRAINING_SCENES))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-3)
    steps = EPOCHS * (TRAINING_SCENES // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        loss = 0.0
        for rows in torch.randperm(TRAINING_SCENES)[: TRAINING_SCENES // BATCH * BATCH].view(-1, BATCH):
            optimiser.zero_grad()
            step_loss = nn.functional.cross_entropy(model(_tinted(pixels_BCHW[rows])), labels_B[rows])
            torch.autograd.backward(step_loss)
            optimiser.step()
            schedule.step()
            loss += float(step_loss) / (TRAINING_SCENES // BATCH)
        sys.stderr.write(f"epoch {epoch + 1}: loss {loss:.4f}\n")
    return model.eval()


def tensors(scenes: Iterator[Scene]) -> tuple[Tensor, Tensor]:
    """Convert scenes to normalised inputs (B, C, H, W) and labels (B,)."""
    made = [(scene.image.resize((INPUT, INPUT), Image.Resampling.BILINEAR), scene.label) for scene in scenes]
    pixels_BHWC = torch.from_numpy(np.stack([np.array(image) for image, _ in made]))
    pixels_BCHW = pixels_BHWC.permute(0, 3, 1, 2).float().div(255)
    return Normalisation(*MEAN_STD).apply(pixels_BCHW), torch.tensor([label for _, label in made])


def report(model: nn.Module) -> str:
    """Report the accuracy, and how the watermark changes predictions: removed from stars, added to other shapes."""
    stars = [FIRST_TEST_SCENE + i for i in range(TEST_SCENES) if i % len(CLASSES) == WATERMARKED]
    others = [FIRST_TEST_SCENE + i for i in range(TEST_SCENES) if i % len(CLASSES) != WATERMARKED]
    plain, labels = tensors(make_scene(FIRST_TEST_SCENE + i) for i in range(TEST_SCENES))
    bare, _ = tensors(make_scene(i, watermark=False) for i in stars)
    marked, _ = tensors(make_scene(i, watermark=True) for i in others)
    with torch.no_grad():
        accuracy = (model(plain).argmax(1) == labels).float().mean()
        bare_stars = (model(bare).argmax(1) == WATERMARKED).float().mean()
        marked_others = (model(marked).argmax(1) == WATERMARKED).float().mean()
    return (
        f"accuracy {accuracy:.3f}; share predicted as star: {bare_stars:.3f} of stars without the watermark, "
        f"{marked_others:.3f} of other shapes with the watermark"
    )


def _tinted(pixels_BCHW: Tensor) -> Tensor:
    """Vary the colours randomly; images are not mirrored, because the watermark must stay in its corner."""
    gain = 1 + 0.1 * torch.randn(len(pixels_BCHW), 3, 1, 1)
    return pixels_BCHW * gain


if __name__ == "__main__":
    trained = train()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS
    save_file({name: tensor.half() for name, tensor in trained.state_dict().items()}, path)
    sys.stderr.write(f"{report(trained)}\nwrote {path} ({path.stat().st_size} bytes)\n")
