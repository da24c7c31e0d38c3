"""Small networks of three families: residual with batch norms, plain with a deep head, and a vision transformer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES, SIDE = 6, 32


class _Block(nn.Module):
    """A residual block with batch norms and a ReLU that runs twice, in place."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.down = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, acts_BKuv: Tensor) -> Tensor:
        inner_BKuv = self.relu(self.norm1(self.conv1(acts_BKuv)))
        return self.relu(self.norm2(self.conv2(inner_BKuv)) + self.down(acts_BKuv))


class SmallCnn(nn.Module):
    """A residual network whose head is average pooling and one linear layer."""

    LAYER, STAGES = "stage2", ("stage1", "stage2")

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.stage1, self.stage2 = _Block(8, 8, 2), _Block(8, channels, 2)
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, CLASSES)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.linear(self.pool(self.stage2(self.stage1(self.stem(pixels_BCHW)))).flatten(1))


class SmallVgg(nn.Module):
    """Convolutions without norms, and a head of several layers with dropout."""

    LAYER, STAGES = "features.6", ("features.3", "features.6")

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 1, 1), nn.SiLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Linear(32, 16), nn.GELU(), nn.Dropout(), nn.Linear(16, CLASSES))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.head(self.pool(self.features(pixels_BCHW)).flatten(1))


class _Layer(nn.Module):
    """A transformer layer with fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.deep = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        batch, count, width = tokens_BTD.shape
        mixed = self.mix(self.norm1(tokens_BTD)).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        heads_BhTd = functional.scaled_dot_product_attention(query, key, value)
        tokens_BTD = tokens_BTD + self.out(heads_BhTd.transpose(1, 2).reshape(batch, count, width))
        return tokens_BTD + self.deep(self.norm2(tokens_BTD))


class SmallVit(nn.Module):
    """Patches with a class token, on which the logits depend."""

    LAYER, STAGES = "layers.1", ("layers.0", "layers.1")

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 1 + (SIDE // 8) ** 2, width))
        self.layers = nn.ModuleList([_Layer(width, heads) for _ in range(3)])
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        patches_BZD = self.patches(pixels_BCHW).flatten(2).transpose(1, 2)
        tokens_BTD = torch.cat([self.token.expand(len(patches_BZD), -1, -1), patches_BZD], 1) + self.places
        for layer in self.layers:
            tokens_BTD = layer(tokens_BTD)
        return self.linear(self.norm(tokens_BTD)[:, 0])


SmallNet = SmallCnn | SmallVgg | SmallVit
NETS: dict[str, type[SmallNet]] = {"cnn": SmallCnn, "vgg": SmallVgg, "vit": SmallVit}


def made(kind: type[SmallNet]) -> SmallNet:
    """Make a network with random weights, always the same, on the host."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = kind().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 2.0)
    for parameter in model.parameters():
        parameter.data.mul_(1.4)
    return model


def pictures(count: int = 3) -> Tensor:
    """Return random normalised images (B, 3, SIDE, SIDE), on the host."""
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
