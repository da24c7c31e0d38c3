"""Small networks whose logits are changed before they are returned, and what the trial says of their outputs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import ToyNet
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.outputs import OutputKind
from pipeline.model.outputs_trial import find_outputs

PARTS_PN = torch.arange(18.0).view(6, 3).sin()
Z_BN = torch.tensor([[2.0, -1.0, 0.5], [-30.0, 30.0, 0.0]])


class Returning(nn.Module):
    """A small network whose logits are given to a function before they are returned."""

    def __init__(self, change: Callable[[Tensor], Any], classes: int = 4) -> None:
        super().__init__()
        self.net = ToyNet(0, classes=classes)
        self.change = change

    def forward(self, pixels_BCHW: Tensor) -> object:
        return self.change(self.net(pixels_BCHW))


def cosines(z_BN: Tensor) -> Tensor:
    weights_NK = nn.Parameter(Z_BN)
    return nn.functional.linear(nn.functional.normalize(z_BN), nn.functional.normalize(weights_NK))


def then(activation: nn.Module, classes: int, bias: float = 0.0) -> nn.Module:
    """Return a network whose last layer is linear, with a bias, behind an activation."""
    last = nn.Linear(4, classes)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(ToyNet(0), activation, last)


def squares(z_BN: Tensor) -> Tensor:
    return z_BN * z_BN


def found(model: nn.Module, kind: str = "auto", key: str | int | None = None) -> OutputKind:
    random_BCHW = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return find_outputs(model, random_BCHW, kind, key)[0].kind  # type: ignore[arg-type]


def refusal(model: nn.Module, kind: str = "auto", key: str | int | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        found(model, kind, key)
    return str(caught.value)
