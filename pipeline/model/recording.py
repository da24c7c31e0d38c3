"""Context managers that change a model for one pass and restore it: hooks, evaluation mode, attention kernels."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.errors import LayerError


@contextmanager
def recording(layers: Mapping[str, nn.Module], saved: dict[str, Tensor], *, gradients: bool) -> Iterator[None]:
    """Save the outputs of layers; only the part of the model after the first of them is differentiated.

    The output of the first layer becomes a leaf of the autograd graph, and later ones depend on it. The model goes on
    with a clone of each output, so that in-place operations do not change the saved tensor.
    """

    def save(name: str, output: object) -> Tensor:
        if name in saved:
            raise LayerError(f"layer '{name}' runs more than once in a forward pass; choose another")
        if not isinstance(output, Tensor):
            raise LayerError(f"layer '{name}' outputs {type(output).__name__}, not one tensor; choose another")
        kept = output if output.requires_grad else output.detach().requires_grad_(gradients)
        saved[name] = kept
        torch.set_grad_enabled(gradients)  # the no_grad below restores it
        return kept.clone()

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name, module in layers.items():
            stack.callback(module.register_forward_hook(_named(save, name)).remove)
        yield


@contextmanager
def replacing(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the output of a layer by `change(output)`."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watching(modules: Mapping[str, nn.Module], outputs: dict[str, Tensor]) -> Iterator[None]:
    """Save the outputs of modules with their autograd graph; for a module that runs twice, the last output."""

    def save(name: str, output: object) -> object:
        if not isinstance(output, Tensor):
            return output
        outputs[name] = output
        return output.clone()

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(_named(save, name)).remove)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and restore the mode of every module afterwards."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def plain_attention(*, wanted: bool) -> Iterator[None]:
    """Use the unfused attention kernel if wanted: the fused ones cannot be differentiated twice."""
    if not wanted:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _named(save: Callable[[str, object], object], name: str) -> Callable[[nn.Module, object, object], object]:
    return lambda _module, _inputs, output: save(name, output)
