"""Tiny networks of torch's own modules, one for each kind of outputs; workers need not import this file."""

from torch import nn


def _net(outputs: int, *last: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, outputs), *last
    )


def one() -> nn.Module:
    """One output: binary, or a regression."""
    return _net(1)


def three() -> nn.Module:
    """Three outputs: independent labels."""
    return _net(3)


def probabilities() -> nn.Module:
    """Three probabilities that sum to 1."""
    return _net(3, nn.Softmax(1))


def cut() -> nn.Module:
    """A layer whose ReLU cuts everything: all maps are constant."""
    net = nn.Sequential(*_net(3), nn.Identity())
    nn.init.constant_(net[0].bias, -100.0)  # type: ignore[arg-type]
    return net
