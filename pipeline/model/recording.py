"""Context managers that change a model for one pass and restore it: hooks, evaluation mode, attention kernels."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from pipeline.errors import LayerError
from pipeline.model.layer_names import LayerName
from pipeline.model.wrappers import eager

Model = TypeVar("Model", bound=nn.Module)
Visit = Callable[[object, int], object]
"""Receives what a layer gives, and the number of the call from 1; returns what the model goes on with."""


@contextmanager
def visiting(module: nn.Module, layer: str, visit: Visit) -> Iterator[Callable[[], int]]:
    """Pass what a layer gives through `visit`: the output or input of a module, in one or every call.

    Yields a function that returns how often the module has run.

    Args:
        module: the module that the layer's name refers to.
        layer: the name, with the call and the side if it has them; without a call, every call is visited.
        visit: called in the forward pass.
    """
    name, calls = LayerName.parse(layer), 0

    def counted() -> bool:
        nonlocal calls
        calls += 1
        return name.call in (None, calls)

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401 - of torch
        if not counted():
            return None
        if not args and kwargs:
            first = next(iter(kwargs))
            return args, kwargs | {first: visit(kwargs[first], calls)}
        return (visit(args[0] if args else None, calls), *args[1:]), kwargs

    def after(_module: nn.Module, _args: object, output: object) -> object:
        return visit(output, calls) if counted() else None

    handle = (
        module.register_forward_pre_hook(before, with_kwargs=True)
        if name.is_input
        else module.register_forward_hook(after)
    )
    try:
        yield lambda: calls
    finally:
        handle.remove()


@contextmanager
def capturing(layers: Mapping[str, nn.Module], take: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Pass the one tensor that each layer gives through `take`, and let the model go on with what it returns.

    A layer may give a tuple whose only tensor is its first part, as blocks of transformers do.

    Args:
        layers: modules by the name of the layer.
        take: receives the layer's name and its tensor.

    Raises:
        LayerError: a layer does not run, runs more than once, or gives no single tensor.
    """
    taken = set[str]()

    def visit(name: str, value: object, call: int) -> object:
        if name in taken:
            raise LayerError(
                f"layer '{name}' runs more than once in a forward pass; choose one of its calls, such as "
                f"'{_of_call(name, call)}'"
            )
        tensor = _one_tensor(name, value)
        taken.add(name)
        return _in_place_of(value, take(name, tensor))

    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(visiting(module, name, _named(visit, name))) for name, module in layers.items()
        }
        yield
    for name, times in runs.items():
        if name not in taken:
            often = f": its module runs {times()} time{'s' * (times() > 1)}" if times() else ""
            raise LayerError(f"layer '{name}' does not run in a forward pass{often}; choose another")


@contextmanager
def recording(layers: Mapping[str, nn.Module], saved: dict[str, Tensor], *, gradients: bool) -> Iterator[None]:
    """Save what layers give; only the part of the model after the first of them is differentiated.

    The tensor of the first layer becomes a leaf of the autograd graph, and later ones depend on it. The model goes on
    with a clone of each tensor, so that in-place operations do not change the saved one.

    Raises:
        LayerError: a layer does not run, runs more than once, or gives no single tensor.
    """

    def save(name: str, tensor: Tensor) -> Tensor:
        kept = tensor if tensor.requires_grad else tensor.detach().requires_grad_(gradients)
        saved[name] = kept
        torch.set_grad_enabled(gradients)  # the no_grad below restores it
        return kept.clone()

    with torch.no_grad(), capturing(layers, save):
        yield


@contextmanager
def replacing(module: nn.Module, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace what a layer gives by `change` of it."""
    with visiting(module, layer, lambda value, _call: _in_place_of(value, change(_one_tensor(layer, value)))):
        yield


@contextmanager
def watching(modules: Mapping[str, nn.Module], outputs: dict[str, Tensor]) -> Iterator[None]:
    """Save the outputs of modules with their autograd graph; for a module that runs twice, the last output."""

    def save(name: str, output: object, _call: int) -> object:
        if not isinstance(output, Tensor):
            return output
        outputs[name] = output
        return output.clone()

    with ExitStack() as stack:
        for name, module in modules.items():
            stack.enter_context(visiting(module, name, _named(save, name)))
        yield


def for_evaluation(model: Model) -> Model:
    """Put a model and all of its modules into evaluation mode, and return it.

    Its own `eval()` and `train()` are not asked: some keep dropout or the statistics of the batch switched on.
    """
    for module in model.modules():
        if module.training:
            module.training = False
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode and run its compiled parts uncompiled; restore everything afterwards."""
    training = [module for module in model.modules() if module.training]
    for_evaluation(model)
    try:
        with eager(model):
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


def _one_tensor(layer: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    tensors = [part for part in tree_leaves(value) if isinstance(part, Tensor)]
    if type(value) is tuple and len(tensors) == 1:
        first: object = value[0]
        if isinstance(first, Tensor):
            return first
    side = "takes" if LayerName.parse(layer).is_input else "outputs"
    raise LayerError(f"layer '{layer}' {side} {type(value).__name__}, not one tensor; choose another")


def _in_place_of(value: object, tensor: Tensor) -> object:
    """Put a tensor in the place of the one that a layer gave."""
    return (tensor, *value[1:]) if isinstance(value, tuple) else tensor


def _of_call(name: str, call: int) -> str:
    parsed = LayerName.parse(name)
    return str(LayerName(parsed.module, call, parsed.is_input))


def _named(save: Callable[[str, object, int], object], name: str) -> Visit:
    return lambda value, call: save(name, value, call)
