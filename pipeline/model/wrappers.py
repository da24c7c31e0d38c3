"""Finds the bare network inside the wrappers that torch puts around it for training or compiling."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_CAPTURING = "_output_capturing_hooks_installed"
"""Attribute of the models of transformers that hold such hooks."""
_COMPILED = "OptimizedModule"
"""Class of a compiled model; importing the class itself would take seconds."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DistributedDataParallel and torch.compile, so that its hooks run."""
    while True:
        if isinstance(model, _PARALLEL):
            model = model.module
        elif type(model).__name__ == _COMPILED:
            model = model.get_submodule("_orig_mod")
        else:
            return model


def unwrap_parts(model: nn.Module) -> None:
    """Replace the wrapped parts of a model by the bare ones, in place, and undo `model.compile()`."""
    for module in [*model.modules()]:
        module._compiled_call_impl = None
        for name, part in [*module._modules.items()]:
            if part is not None and unwrapped(part) is not part:
                setattr(module, name, unwrapped(part))


def drop_capturing_hooks(model: nn.Module) -> None:
    """Remove the hooks that transformers leaves in a model whose hidden states were asked for, in place.

    They cannot be pickled, and the library installs them again in the next pass that needs them.
    """
    for module in model.modules():
        vars(module).pop(_CAPTURING, None)
        for key, hook in [*module._forward_hooks.items()]:
            if getattr(hook, "__module__", None) == "transformers.utils.output_capturing":
                del module._forward_hooks[key]


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """Run the compiled parts of a model as plain Python, because the hooks of their layers do not run otherwise."""
    compiled = any(type(part).__name__ == _COMPILED or part._compiled_call_impl is not None for part in model.modules())
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield
