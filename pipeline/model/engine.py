"""The engine: a private copy of the model, made to run fast, and the plain model for what needs every part of it.

The copy shares its parameters with the model but for those that are laid out anew; the model is never changed.
Batch norms are folded into the convolutions before them, weights lie channels-last, and at bf16 the weights of
convolutions and linear layers are rounded once instead of in every pass, but for those that make the logits, which
differ by less than bf16's steps. What the copy gives is the model's answer up to rounding.

Legend: P rows of a pass, C colours, (H, W) pixels, N classes.
"""

import copy
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pipeline.errors import LayerError, first_line
from pipeline.model.recording import evaluating, plain_attention

Precision = Literal["fp32", "bf16"]


def check_parameters(model: nn.Module) -> None:
    """Refuse a model that autograd could not follow, or that is not in float32; raises LayerError."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise LayerError("the model was built inside torch.inference_mode(); build it outside, then explain it")
    other = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if other:
        raise LayerError(f"the model's parameters are {other.pop()}, not torch.float32; call model.float()")


class Engine:
    """Runs a model at one precision.

    Args:
        model: any classifier that maps (P, C, H, W) to logits (P, N).
        precision: "fp32", or "bf16" for autocast.
        layers: names of the layers that are looked at; what they give stays what it was.
        compiled: also compile the copy, for the passes of `masked`. It takes up to a minute, once a batch size.
    """

    def __init__(self, model: nn.Module, precision: Precision, layers: Collection[str], *, compiled: bool) -> None:
        self._model = model
        self._precision = precision
        self._layers = frozenset(layers)
        self._compiled = compiled
        self.renew()

    def keep(self, layers: Collection[str]) -> None:
        """Look at these layers too."""
        if not self._layers.issuperset(layers):
            self._layers |= set(layers)
            self.renew()

    def layer(self, name: str) -> nn.Module:
        """The module of that name in the copy."""
        return self._copy.get_submodule(name)

    def logits(self, pixels_PCHW: Tensor, *, differentiable: bool = False) -> Tensor:
        """Run the copy: logits (P, N), float32."""
        return self._run(self._copy, pixels_PCHW.contiguous(memory_format=torch.channels_last), differentiable)

    def masked(self, pixels_PCHW: Tensor) -> Tensor:
        """Run the copy, compiled where that was asked for, on one of very many passes of one size."""
        return self._run(self._fast, pixels_PCHW.contiguous(memory_format=torch.channels_last), False)

    def plain(self, pixels_PCHW: Tensor, *, differentiable: bool = False) -> Tensor:
        """Run the model itself, whose every module and parameter is there."""
        return self._run(self._model, pixels_PCHW, differentiable)

    def renew(self) -> None:
        """Copy the model again, as it is now."""
        self._copy = fast_copy(self._model, self._precision, self._layers)
        self._fast: Callable[[Tensor], Any] = _Compiled(self._copy) if self._compiled else self._copy

    def _run(self, module: Callable[[Tensor], Any], pixels_PCHW: Tensor, differentiable: bool) -> Tensor:
        with torch.autocast(pixels_PCHW.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            return _logits_of(module, pixels_PCHW, self._model, differentiable)


class Exact:
    """Runs a model as it is, in float32."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def layer(self, name: str) -> nn.Module:
        """The module of that name."""
        return self._model.get_submodule(name)

    def logits(self, pixels_PCHW: Tensor, *, differentiable: bool = False) -> Tensor:
        """Run the model: logits (P, N)."""
        with torch.autocast(pixels_PCHW.device.type, enabled=False):
            return _logits_of(self._model, pixels_PCHW, self._model, differentiable)


def _logits_of(module: Callable[[Tensor], Any], pixels_PCHW: Tensor, model: nn.Module, differentiable: bool) -> Tensor:
    with evaluating(model), plain_attention(wanted=differentiable):
        logits_PN = module(pixels_PCHW)
    if not isinstance(logits_PN, Tensor) or logits_PN.ndim != 2:
        raise LayerError("the model must return one tensor of logits (B, N); wrap it in a module that picks them out")
    return logits_PN.float()


@torch.inference_mode(False)  # what is made there autograd would refuse
def fast_copy(model: nn.Module, precision: Precision, layers: Collection[str]) -> nn.Module:
    """Copy a model in evaluation mode and make the copy fast; a model that cannot be copied is given back as it is."""
    shared = {id(tensor): _shared(tensor) for tensor in (*model.parameters(), *model.buffers())}
    try:
        fast = copy.deepcopy(model, shared).eval()
    except Exception:  # a module may hold anything: locks, graphs, files
        return model
    called = _called_once(fast)
    if called is not None:
        for conv, norm in _foldable(called, layers):
            _fold(fast, conv, norm)
        if precision == "bf16":
            for name, wrap in _last_steps(called).items():
                _replace(fast, name, wrap(fast.get_submodule(name)))
    for name, module in fast.named_modules():
        if type(module) is nn.Conv2d and not _is_hooked(module):
            _lay_out(module, precision if called is not None else "fp32")
        elif type(module) is nn.Linear and precision == "bf16" and called is not None and name in called.names:
            module.weight = _frozen(module.weight.bfloat16())
    return fast


class _Graph:
    """Which modules a forward pass calls exactly once, and what it does with what they give."""

    def __init__(self, graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        calls = [node for node in graph.nodes if node.op == "call_module"]
        times = dict[int, int]()
        for node in calls:
            times[id(modules[node.target])] = times.get(id(modules[node.target]), 0) + 1
        self.nodes = [node for node in calls if times[id(modules[node.target])] == 1]
        self.names = frozenset(str(node.target) for node in self.nodes)


def _called_once(model: nn.Module) -> _Graph | None:
    """Follow one forward pass without running it; None for a model that does not let itself be followed."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # control flow that depends on the data, and whatever else a model may do
        return None
    return _Graph(graph, dict(model.named_modules()))


def _foldable(graph: _Graph, layers: Collection[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a convolution and the batch norm that alone reads it, where nobody looks at what lies between."""
    for node in graph.nodes:
        norm = graph.modules[str(node.target)]
        before = node.args[0] if node.args else None
        if not (isinstance(before, fx.Node) and before.op == "call_module" and str(before.target) in graph.names):
            continue
        conv = graph.modules[str(before.target)]
        alone = len(before.users) == 1 and not _is_hooked(norm) and not _is_hooked(conv)
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None and alone:
            pair = str(before.target), str(node.target)
            if not any(_lies_in(pair[0], layer) and not _lies_in(pair[1], layer) for layer in layers):
                yield pair


def _fold(model: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    bias_K = None if conv.bias is None else conv.bias.double()
    weight, bias = fuse_conv_bn_weights(
        conv.weight.double(),
        bias_K,
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        None if norm.weight is None else norm.weight.double(),
        None if norm.bias is None else norm.bias.double(),
    )
    conv.weight, conv.bias = _frozen(weight.to(conv.weight)), _frozen(bias.to(conv.weight))
    _replace(model, norm_name, nn.Identity())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _last_steps(graph: _Graph) -> "dict[str, type[_InFloat32 | _ToFloat32]]":
    """Where float32 begins before the logits: the linear layer that makes them, and the module before the pooling."""
    found: dict[str, type[_InFloat32 | _ToFloat32]] = {}
    for node in reversed(graph.nodes):
        name, module = str(node.target), graph.modules[str(node.target)]
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.Flatten | nn.Dropout) or _is_hooked(module):
            continue
        if found or not isinstance(module, nn.Linear):
            found[name] = _ToFloat32
            break
        found[name] = _InFloat32
    return found


class _InFloat32(nn.Module):
    """Runs a linear layer in float32: masked images differ in their logits by less than bf16 tells apart."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: Tensor) -> Any:  # noqa: ANN401 - whatever the module gives
        with torch.autocast(values.device.type, enabled=False):
            return self.module(values.float())


class _ToFloat32(nn.Module):
    """Runs a module and hands float32 on, so that means over positions are not rounded."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever the module takes and gives
        given = self.module(*inputs, **named)
        return given.float() if isinstance(given, Tensor) else given


def _lay_out(conv: nn.Conv2d, precision: Precision) -> None:
    weight = conv.weight.bfloat16() if precision == "bf16" else conv.weight
    conv.weight = _frozen(weight.contiguous(memory_format=torch.channels_last))


class _Compiled:
    """A compiled model; one that the compiler cannot take runs as it is, with a warning."""

    def __init__(self, model: nn.Module) -> None:
        on_gpu = any(parameter.is_cuda for parameter in model.parameters())
        options: dict[str, Any] = {"freezing": True, "triton.cudagraphs": on_gpu, "compile_threads": 1}
        self._model = model
        self._run: Callable[[Tensor], Any] = torch.compile(model, dynamic=False, options=options)

    def __call__(self, pixels_PCHW: Tensor) -> Any:  # noqa: ANN401 - whatever the model gives
        from torch._dynamo.exc import TorchDynamoException  # costs seconds, and few workers compile

        try:
            return self._run(pixels_PCHW)
        except TorchDynamoException as error:
            warnings.warn(f"the model is run uncompiled: {first_line(error)}", stacklevel=2)
            self._run = self._model
            return self._run(pixels_PCHW)


def _shared(tensor: Tensor) -> Tensor:
    """The same numbers at the same place, as a tensor that wants no gradient."""
    return _frozen(tensor) if isinstance(tensor, nn.Parameter) else tensor.detach()


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _lies_in(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")
