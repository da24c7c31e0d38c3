"""What is done to a model for the length of one pass and always undone: hooks, evaluation mode, attention kernels."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.errors import LayerError


@contextmanager
def recording(layers: Mapping[str, nn.Module], saved: dict[str, Tensor], *, gradients: bool) -> Iterator[None]:
    """Keep what layers give; the trunk before the first of them runs without autograd, the head behind with it.

    The first layer's output becomes a leaf; a later one hangs on it. What runs on behind a layer is a clone, so that
    in-place operations there do not change what was kept.
    """

    def keep(name: str, output: object) -> Tensor:
        if name in saved:
            raise LayerError(f"layer '{name}' runs more than once in a forward pass; choose another")
        if not isinstance(output, Tensor):
            raise LayerError(f"layer '{name}' gives {type(output).__name__}, not one tensor")
        kept = output if output.requires_grad else output.detach().requires_grad_(gradients)
        saved[name] = kept
        torch.set_grad_enabled(gradients)  # until the no_grad below ends
        return kept.clone()

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name, module in layers.items():
            stack.callback(module.register_forward_hook(_named(keep, name)).remove)
        yield


@contextmanager
def replacing(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Give the rest of the model something else than what a layer gives."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watching(modules: Mapping[str, nn.Module], outputs: dict[str, Tensor]) -> Iterator[None]:
    """Keep the outputs of modules as part of the graph; of one that runs twice, the last."""

    def keep(name: str, output: object) -> object:
        if not isinstance(output, Tensor):
            return output
        outputs[name] = output
        return output.clone()

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(_named(keep, name)).remove)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode and put every module back as it was."""
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
    """Fused attention kernels cannot be differentiated twice; the plain one can."""
    if not wanted:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _named(keep: Callable[[str, object], object], name: str) -> Callable[[nn.Module, object, object], object]:
    return lambda _module, _inputs, output: keep(name, output)
