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


def negative() -> nn.Module:
    """A first layer of negative activations with positive gradients: a method that ends in a ReLU shows nothing."""
    conv, linear = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3)
    nn.init.constant_(conv.bias, -100.0)  # type: ignore[arg-type]
    nn.init.uniform_(linear.weight, 0.1, 1.0)
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
