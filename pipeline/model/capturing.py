"""Lets models of transformers that return their hidden states travel to other processes.

In the first pass that asks for hidden states, transformers installs hooks, which cannot be pickled. And it keeps a list
of the classes that were built in a process, in which it looks up what they can return: in a process that received a
model, the hidden states would be missing without a word.
"""

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import nn

_INSTALLED = "_output_capturing_hooks_installed"
"""Attribute of the models that hold such hooks."""
_BASE = ("transformers.modeling_utils", "PreTrainedModel")


def drop_capturing_hooks(model: nn.Module) -> None:
    """Remove the hooks of transformers from a model, in place; the library installs them again where it needs them."""
    for module in model.modules():
        vars(module).pop(_INSTALLED, None)
        for key, hook in [*module._forward_hooks.items()]:
            if getattr(hook, "__module__", None) == "transformers.utils.output_capturing":
                del module._forward_hooks[key]


def announce_classes(model: nn.Module) -> None:
    """Build the classes of transformers in a received model once, without memory for weights: this lists them."""
    for part in _of_transformers(model):
        with suppress(Exception), torch.device("meta"):  # a user's subclass may need other arguments
            type(part)(part.config)


def _of_transformers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost models of transformers in a model, without importing the library."""
    if any((kind.__module__, kind.__name__) == _BASE for kind in type(model).__mro__):
        yield model
        return
    for child in model.children():
        yield from _of_transformers(child)
