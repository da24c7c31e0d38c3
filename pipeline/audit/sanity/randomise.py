"""Randomises the weights of a model step by step, from its output to its input."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from pipeline.model.noise import seed_of

_RESETTABLE = (_ConvNd, _NormBase, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.Embedding)


def randomised(model: nn.Module, steps: int, seed: int) -> Iterator[tuple[list[str], nn.Module]]:
    """Yield the model after each step of a cascading randomisation; layers once randomised stay random.

    Layers are randomised in the reverse order of their registration: the last one alone, then the others in groups of
    nearly equal number, until every layer is random. Layers with an initialiser in PyTorch use it. Other parameters
    (class tokens, embeddings) are drawn from a normal distribution of standard deviation 0.02.

    Args:
        model: not modified; a single copy is changed in place and yielded at every step.
        steps: number of groups; fewer if the model has fewer layers.
        seed: of the random values.
    """
    changed = copy.deepcopy(model)
    for names in layer_groups(model, steps):
        for name in names:
            _reset(changed.get_submodule(name), seed_of(seed, name, "randomisation"))
        yield names, changed


def layer_groups(model: nn.Module, steps: int) -> list[list[str]]:
    """Group the names of the layers with parameters of their own, from the output to the input."""
    holders = (name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False)))
    names = list(holders)[::-1]
    first, rest = names[:1], names[1:]
    if not rest or steps < 2:
        return [names]
    pieces = np.array_split(np.array(rest, dtype=object), min(steps - 1, len(rest)))
    return [first, *(list(piece) for piece in pieces)]


def _reset(module: nn.Module, seed: int) -> None:
    """Initialise one layer; restores the global generator, from which PyTorch's initialisers draw."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        device = next(module.parameters(recurse=False)).device
        if isinstance(module, _RESETTABLE):
            module.to("cpu").reset_parameters()  # the same numbers on every device
            module.to(device)
            return
        for parameter in module.parameters(recurse=False):
            parameter.copy_(0.02 * torch.randn(parameter.shape))
