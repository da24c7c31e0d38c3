"""Take away what a model has learnt, step by step from its output to its input."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from pipeline.model.noise import generator

_RESETTABLE = (_ConvNd, _NormBase, nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.Embedding)


def randomised(model: nn.Module, steps: int, seed: int) -> Iterator[tuple[list[str], nn.Module]]:
    """Give the model with more and more layers initialised anew; what was random stays so (cascading).

    Layers go in the reverse of the order in which they were registered: the last one alone, then the others in groups
    of nearly equal number, until nothing learnt is left. Layers that PyTorch knows how to initialise are initialised
    as it does, others (class tokens, embeddings) by normal numbers of deviation 0.02.

    Args:
        model: left as it is; one copy of it is changed in place and given again and again.
        steps: number of groups; fewer where the model has fewer layers.
        seed: of the initial values.
    """
    changed = copy.deepcopy(model)
    for names in layer_groups(model, steps):
        for name in names:
            _reset(changed.get_submodule(name), generator(seed, name, "randomisation"))
        yield names, changed


def layer_groups(model: nn.Module, steps: int) -> list[list[str]]:
    """Names of the layers that hold parameters, from the output to the input, in groups."""
    holders = (name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False)))
    names = list(holders)[::-1]
    first, rest = names[:1], names[1:]
    if not rest or steps < 2:
        return [names]
    pieces = np.array_split(np.array(rest, dtype=object), min(steps - 1, len(rest)))
    return [first, *(list(piece) for piece in pieces)]


def _reset(module: nn.Module, own: torch.Generator) -> None:
    """Initialise one layer; PyTorch's initialisers draw from the global generator, which is put back."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(int(torch.randint(2**62, (), generator=own)))
        device = next(module.parameters(recurse=False)).device
        if isinstance(module, _RESETTABLE):
            module.to("cpu").reset_parameters()  # the same numbers on every device
            module.to(device)
            return
        for parameter in module.parameters(recurse=False):
            parameter.copy_(0.02 * torch.randn(parameter.shape))
