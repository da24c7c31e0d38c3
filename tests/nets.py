"""Small networks with random weights, for tests that need a model and no photographs."""

import torch
from torch import Tensor, nn


class ToyNet(nn.Module):
    """Two convolutions and a small head, optionally with in-place ReLU or without biases."""

    def __init__(
        self,
        seed: int = 0,
        *,
        channels: int = 6,
        classes: int = 4,
        bias: bool = True,
        inplace: bool = False,
        stride: int = 2,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv2d(3, 5, 3, stride, 1, bias=bias),
                nn.ReLU(inplace=inplace),
                nn.Conv2d(5, channels, 3, 1, 1, bias=bias),
                nn.ReLU(inplace=inplace),
            )
            self.head = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1, bias=bias), nn.ReLU(inplace=inplace))
            self.linear = nn.Linear(8, classes, bias=bias)
        for parameter in self.parameters():
            parameter.data.mul_(1.5)
        self.eval()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.head(self.features(pixels_BCHW)).mean((2, 3)))


class GapNet(nn.Module):
    """Convolution, global average pooling and linear layer: the head for which methods have closed forms."""

    def __init__(self, seed: int = 0, *, channels: int = 5, classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU())
            self.linear = nn.Linear(channels, classes)
        self.eval()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.features(pixels_BCHW).mean((2, 3)))


class StagedNet(nn.Module):
    """Two resolutions, batch norms and a head that is not linear: `stage1` (6, 8, 8) and `stage2` (7, 4, 4)."""

    STAGES = ("stage1", "stage2")

    def __init__(self, seed: int = 0, *, classes: int = 4, smooth: bool = False) -> None:
        super().__init__()
        activation = nn.SiLU if smooth else nn.ReLU
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.stage1 = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), activation())
            self.stage2 = nn.Sequential(nn.Conv2d(6, 7, 3, 2, 1, bias=False), nn.BatchNorm2d(7), activation())
            self.head = nn.Sequential(nn.Conv2d(7, 8, 3, 1, 1), activation())
            self.linear = nn.Linear(8, classes)
            for norm in (self.stage1[1], self.stage2[1]):
                norm.running_mean.uniform_(-0.3, 0.3)
                norm.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.3, 0.3)
        for parameter in self.parameters():
            parameter.data.mul_(1.4)
        self.eval()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.head(self.stage2(self.stage1(pixels_BCHW))).mean((2, 3)))


def images(seed: int = 0, count: int = 3, side: int = 16) -> Tensor:
    """Return random normalised images (B, 3, side, side)."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
