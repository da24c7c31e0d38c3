"""Rules of DeepLift and LRP for a list of layers, written from the papers, layer by layer.

Shrikumar, Greenside, Kundaje, ICML 2017 (rescale rule); Bach and others, PLOS ONE 2015 (epsilon rule).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _values(layers: Sequence[nn.Module], pixels_1CHW: Tensor) -> list[Tensor]:
    """Return what goes into each layer, and what the last one gives."""
    values = [pixels_1CHW]
    for layer in layers:
        values.append(layer(values[-1]).detach())
    return values


def _back(layer: nn.Module, at: Tensor, upstream: Tensor) -> Tensor:
    """Multiply by the transposed Jacobian of a layer."""
    at = at.detach().clone().requires_grad_()
    (grads,) = torch.autograd.grad(layer(at), at, upstream)
    return grads


def deep_lift(layers: Sequence[nn.Module], pixels_1CHW: Tensor, baseline_1CHW: Tensor, target: int) -> Tensor:
    """Return the contributions (1, C, H, W): multipliers times the change of the pixels."""
    here, there = _values(layers, pixels_1CHW), _values(layers, baseline_1CHW)
    multipliers = torch.zeros_like(here[-1])
    multipliers[0, target] = 1.0
    for i in reversed(range(len(layers))):
        change_in, change_out = here[i] - there[i], here[i + 1] - there[i + 1]
        if isinstance(layers[i], nn.ReLU):
            ratio = change_out / torch.where(change_in.abs() < 1e-10, 1.0, change_in)
            slope = _back(layers[i], here[i], torch.ones_like(change_out))
            multipliers = multipliers * torch.where(change_in.abs() < 1e-10, slope, ratio)
        elif isinstance(layers[i], nn.MaxPool2d):
            multipliers = _pooled(layers[i], here[i], there[i], multipliers)
        else:
            multipliers = _back(layers[i], here[i], multipliers)
    return (multipliers * (pixels_1CHW - baseline_1CHW)).detach()


def _pooled(layer: nn.Module, here: Tensor, there: Tensor, multipliers: Tensor) -> Tensor:
    """Share the change of each maximum between the places of both maxima; windows do not overlap."""
    out_here, out_there = layer(here), layer(there)
    highest = torch.maximum(out_here, out_there)
    credit = _back(layer, here, multipliers * (highest - out_there)) + _back(
        layer, there, multipliers * (out_here - highest)
    )
    change = here - there
    return torch.where(change.abs() < 1e-10, 0.0, credit / torch.where(change.abs() < 1e-10, 1.0, change))


def relevance(layers: Sequence[nn.Module], pixels_1CHW: Tensor, target: int) -> Tensor:
    """Return the relevance of the pixels for a logit by the epsilon rule, (1, C, H, W)."""
    values = _values(layers, pixels_1CHW)
    relevances = torch.zeros_like(values[-1])
    relevances[0, target] = values[-1][0, target]
    for i in reversed(range(len(layers))):
        if isinstance(layers[i], nn.ReLU):
            continue  # relevance passes unchanged
        if isinstance(layers[i], nn.Flatten):
            relevances = relevances.reshape(values[i].shape)
            continue
        sums = values[i + 1]
        sums = sums + 1e-9 * torch.where(sums < 0, -1.0, 1.0)
        relevances = values[i] * _back(layers[i], values[i], relevances / sums)
    return relevances.detach()
