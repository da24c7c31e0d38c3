"""Small networks with random weights, for tests that need a model and no photographs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class Reframed(nn.Module):
    """Changes the frame of its images before a network sees them."""

    def __init__(self, net: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.net(self.change(pixels_BCHW))


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


class TinyVit(nn.Module):
    """A vision transformer with three blocks over 4 x 4 patches of images of 16 x 16 pixels.

    Args:
        seed: of the weights.
        pooling: what the logits read: the `class` token, the mean of the `patches` (there is no class token), or `both`
            a class and a distillation token, each with a head, whose logits are averaged.
        fused: whether attention is one call of torch, or an explicit softmax.
        spare: further tokens before the patches, which the logits do not read.
    """

    HEADS, WIDTH = 2, 16

    def __init__(
        self, seed: int = 0, *, pooling: str = "class", fused: bool = True, spare: int = 0, blocks: int = 3
    ) -> None:
        super().__init__()
        self.pooling, width = pooling, self.WIDTH
        self.prefix = {"class": 1, "patches": 0, "both": 2}[pooling]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.patches = nn.Conv2d(3, width, 4, 4)
            self.before = nn.Parameter(torch.randn(1, self.prefix + spare, width))
            self.blocks = nn.Sequential(*(TinyBlock(width, self.HEADS, fused=fused) for _ in range(blocks)))
            self.norm = nn.LayerNorm(width)
            self.linear, self.second = nn.Linear(width, 4), nn.Linear(width, 4)
            for part, scale in ((self.blocks, 1.5), (self.linear, 3.0), (self.second, 3.0)):
                for parameter in part.parameters():
                    parameter.data.mul_(scale)
        self.eval()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        patches_BTK = self.patches(pixels_BCHW).flatten(2).mT
        tokens_BTK = torch.cat([self.before.expand(len(patches_BTK), -1, -1), patches_BTK], 1)
        tokens_BTK = self.norm(self.blocks(tokens_BTK))
        if self.pooling == "both":
            return (self.linear(tokens_BTK[:, 0]) + self.second(tokens_BTK[:, 1])) / 2
        start = self.before.shape[1]
        return self.linear(tokens_BTK[:, 0] if self.pooling == "class" else tokens_BTK[:, start:].mean(1))


class TinyBlock(nn.Module):
    """A block of a vision transformer: attention and two linear layers, each with a norm before and a skip around."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens_BTK: Tensor) -> Tensor:
        split = self.qkv(self.norm1(tokens_BTK)).unflatten(2, (3, self.heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        if self.fused:
            heads_BhTd = functional.scaled_dot_product_attention(q, k, v)
        else:
            heads_BhTd = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        tokens_BTK = tokens_BTK + self.out(heads_BhTd.transpose(1, 2).flatten(2))
        return tokens_BTK + self.mlp(self.norm2(tokens_BTK))
