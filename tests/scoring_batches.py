"""Scoring batches of given heat maps, for tests of metrics."""

from collections.abc import Sequence

import torch
from nets import ToyNet, images
from torch import Tensor, nn

from pipeline.metrics import ScoringBatch, Truth
from pipeline.model.probe import Probe


class Seen(list[Tensor]):
    """List that a model shares with its deep copies, to record their inputs."""

    def __deepcopy__(self, memo: object) -> "Seen":
        return self


class BrightnessNet(nn.Module):
    """Two-class model whose first logit is the mean pixel; it records the inputs of itself and its copies."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.inputs = Seen()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        if isinstance(pixels_BCHW, Tensor):  # tracing passes a proxy instead
            self.inputs.append(pixels_BCHW.detach().clone())
        brightness_B = self.features(pixels_BCHW).mean((1, 2, 3))
        return torch.stack([brightness_B, torch.zeros_like(brightness_B)], 1)


def scoring_batch(
    maps_BMHW: Tensor,
    *,
    boxes: Sequence[Sequence[Sequence[float]] | None] | None = None,
    model: nn.Module | None = None,
    pixels_BCHW: Tensor | None = None,
    keys: tuple[str, ...] | None = None,
) -> ScoringBatch:
    """Build a scoring batch of heat maps on a small network; the targets are 0, 1, 0, 1 ..."""
    count = len(maps_BMHW)
    model = model or ToyNet(0)
    pixels_BCHW = images(0, count) if pixels_BCHW is None else pixels_BCHW
    probe = Probe(model, "features" if isinstance(model, BrightnessNet) else "features.3")
    evidence = probe.capture(pixels_BCHW, torch.arange(count) % 2, gradients=False, keys=keys)
    boxes = [None] * count if boxes is None else boxes
    truth = Truth([None if one is None else torch.tensor(one).reshape(-1, 4) for one in boxes])
    return ScoringBatch(maps_BMHW, evidence, truth, probe)
