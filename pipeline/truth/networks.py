"""Small networks that classify scenes: plain convolutions, residual blocks, and a vision transformer.

Their weights are made by `camatlas truth train` and are part of the package. Legend: (H, W) pixels.
"""

from collections import OrderedDict
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.baselines import Normalisation
from pipeline.settings.libraries import import_torchvision
from pipeline.truth.rules import CLASSES
from pipeline.truth.shapes import SIDE

NORMALISATION = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def plain() -> nn.Module:
    """Build six convolutions, global average pooling and one linear layer."""
    channels, strides = (3, 16, 32, 32, 48, 64, 64), (2, 2, 1, 2, 1, 1)
    layers = [_conv(channels[i], channels[i + 1], stride) for i, stride in enumerate(strides)]
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), head=_head(channels[-1])))


def residual() -> nn.Module:
    """Build a convolution, five residual blocks, global average pooling and one linear layer."""
    blocks = [_conv(3, 16, 2), _Residual(16, 24, 2), _Residual(24, 24, 1), _Residual(24, 48, 2), _Residual(48, 48, 1)]
    return nn.Sequential(OrderedDict(features=nn.Sequential(*blocks, _Residual(48, 64, 1)), head=_head(64)))


def vit() -> nn.Module:
    """Build a vision transformer with four convolutions in front, 6 x 6 tokens and four blocks."""
    import_torchvision()
    from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer  # slow to import

    stem = [ConvStemConfig(channels, 3, 2) for channels in (16, 32, 48, 64)]
    model: nn.Module = VisionTransformer(
        SIDE, 16, num_layers=4, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=len(CLASSES),
        conv_stem_configs=stem,
    )  # fmt: skip
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {"plain": plain, "residual": residual, "vit": vit}


def weights_path(name: str) -> Path:
    """Return where the weights of a network lie in the package."""
    return Path(str(files("pipeline.truth") / f"{name}.safetensors"))


def load_network(name: str, weights: Path) -> nn.Module:
    """Build a network with weights of a file, ready to classify.

    Raises:
        ConfigError: the file does not hold its weights.
    """
    if not weights.is_file():
        raise ConfigError.one("--weights", f"there is no file '{weights}'", "make one with camatlas truth train")
    model = NETWORKS[name]()
    try:
        model.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError):  # torch lists every name that does not fit
        raise ConfigError.one(
            "--weights", f"'{weights}' does not hold the weights of '{name}'", "make them with camatlas truth train"
        ) from None
    return model.eval()


class _Residual(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(before, after, stride), nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Add the shortcut to the convolutions, and rectify."""
        rectified: Tensor = self.relu(self.body(features) + self.shortcut(features))
        return rectified


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, len(CLASSES)))
