"""Copies of a model that have learned nothing, in which only the architecture decides where cells lie."""

import copy

import torch
from torch import nn

_SMALLER = 0.5
"""Factor of shuffled weights, so that functions such as ReLU6 are not saturated."""
_LARGEST = 1 << 23
"""Most numbers of a tensor that is shuffled; larger ones are those of linear layers after the grid."""


def shuffled(model: nn.Module, seed: int) -> nn.Module | None:
    """Return a copy of a model with shuffled weights and without biases; None if it cannot be copied.

    Where cells lie is a matter of the architecture. What a network has learned to look at, such as text along an edge,
    would draw the places of its cells there.
    """
    try:
        copied = copy.deepcopy(model)
    except Exception:  # it may hold what cannot be copied, or need too much memory
        return None
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*copied.named_parameters(), *copied.named_buffers()):
            if tensor.ndim > 1 and tensor.numel() <= _LARGEST and tensor.is_floating_point():
                order = torch.randperm(tensor.numel(), generator=rng).to(tensor.device)
                tensor.copy_(_SMALLER * tensor.flatten()[order].reshape(tensor.shape))
            elif name.endswith(("bias", "running_mean")):
                tensor.zero_()
    return copied
