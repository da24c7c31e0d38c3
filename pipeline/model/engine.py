"""Runs a model fast: on a private optimised copy, or on the unchanged model where all of its modules are needed.

The copy shares its parameters with the model, except those whose memory layout or precision changes. The model itself
is never changed. In the copy, batch norms are folded into the convolutions before them, and convolution weights are
channels-last. At bf16 the weights of convolutions and linear layers are rounded once instead of in every pass. The
linear layer that makes the logits stays in float32, because the logits of masked images differ by less than bf16
resolves. The copy's logits equal those of the model up to rounding.

Legend: P rows of a pass, C colours, (H, W) pixels, N classes, K channels.
"""

import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pipeline.errors import LayerError
from pipeline.model.arithmetic import check_precision
from pipeline.model.compiled import Compiled
from pipeline.model.layer_names import LayerName, module_of
from pipeline.model.outputs import SOFTMAX, Outputs
from pipeline.model.recording import evaluating, for_evaluation, plain_attention
from pipeline.settings.precision import Precision

__all__ = ["Engine", "Exact", "Precision", "check_parameters", "fast_copy"]


def check_parameters(model: nn.Module, precision: Precision = "fp32") -> None:
    """Raise LayerError for parameters that are inference tensors or not float32, and check their device's precision."""
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise LayerError(
            "the model was built inside torch.inference_mode(), so it has no gradients; build it outside of it"
        )
    other = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if other:
        raise LayerError(f"the model's parameters are {other.pop()}, not torch.float32; call model.float()")
    check_precision(precision, next((p.device for p in model.parameters()), torch.device("cpu")))


class Engine:
    """Runs a model at one precision.

    Args:
        model: any classifier that maps (P, C, H, W) to logits (P, N).
        precision: "fp32" or "tf32", see `arithmetic.multiplying`, which the caller enters; or "bf16" for autocast.
        layers: names of the layers whose outputs are captured; the copy leaves these outputs unchanged.
        compiled: also compile the copy, for `masked`. Compiling takes up to a minute for each of a
            few sizes of passes.
        outputs: how the model's return value becomes logits.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: Precision,
        layers: Collection[str],
        *,
        compiled: bool,
        outputs: Outputs = SOFTMAX,
    ) -> None:
        self._model = model
        self._outputs = outputs
        self._precision = precision
        self._layers = frozenset(layers)
        self._is_compiled = compiled
        self.renew()

    def keep(self, layers: Collection[str]) -> None:
        """Add layers whose outputs the copy must leave unchanged."""
        if not self._layers.issuperset(layers):
            self._layers |= set(layers)
            self.renew()

    def layer(self, name: str) -> nn.Module:
        """Return the module of a layer in the copy, or the copy itself for the name ""."""
        return self._copy.get_submodule(module_of(name))

    def logits(self, pixels_PCHW: Tensor, *, differentiable: bool = False) -> Tensor:
        """Run the copy and return logits (P, N), float32."""
        return self._run(self._copy, pixels_PCHW.clone(memory_format=torch.channels_last), differentiable)

    def masked(self, pixels_PCHW: Tensor) -> Tensor:
        """Run the copy, compiled if requested, and return logits (P, N); for many passes of the same size."""
        pixels_PCHW = pixels_PCHW.contiguous(memory_format=torch.channels_last)
        if self._compiled is not None:
            return self._compiled.logits(pixels_PCHW)
        return self._without_gradients(self._copy, pixels_PCHW)

    def plain(self, pixels_PCHW: Tensor, *, differentiable: bool = False) -> Tensor:
        """Run the model itself, with all of its modules and parameters, and return logits (P, N), float32."""
        return self._run(self._model, pixels_PCHW.clone(), differentiable)

    def renew(self) -> None:
        """Copy the model again, with its current parameters."""
        self._copy = fast_copy(self._model, self._precision, self._layers)
        self._compiled = Compiled(self._copy, self._without_gradients) if self._is_compiled else None

    @property
    def trouble(self) -> str:
        """Why the copy runs uncompiled although it was to be compiled; empty if it does not."""
        return "" if self._compiled is None else self._compiled.trouble

    def _without_gradients(self, module: Callable[[Tensor], Any], pixels_PCHW: Tensor) -> Tensor:
        return self._run(module, pixels_PCHW, False)

    def _run(self, module: Callable[[Tensor], Any], pixels_PCHW: Tensor, differentiable: bool) -> Tensor:
        with torch.autocast(pixels_PCHW.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            return _logits_of(module, pixels_PCHW, self._model, self._outputs, differentiable)


class Exact:
    """Runs the unchanged model in float32, without autocast."""

    def __init__(self, model: nn.Module, outputs: Outputs = SOFTMAX) -> None:
        self._model, self._outputs = model, outputs

    def layer(self, name: str) -> nn.Module:
        """Return the module of a layer, or the model itself for the name ""."""
        return self._model.get_submodule(module_of(name))

    def logits(self, pixels_PCHW: Tensor, *, differentiable: bool = False) -> Tensor:
        """Run the model and return logits (P, N), float32."""
        with torch.autocast(pixels_PCHW.device.type, enabled=False):
            return _logits_of(self._model, pixels_PCHW.clone(), self._model, self._outputs, differentiable)


def _logits_of(
    module: Callable[[Tensor], Any], pixels_PCHW: Tensor, model: nn.Module, outputs: Outputs, differentiable: bool
) -> Tensor:
    """Run a module on pixels that are its own: a model that changes its input in place changes a copy."""
    with evaluating(model), plain_attention(wanted=differentiable):
        return outputs.logits(module(pixels_PCHW))


@torch.inference_mode(False)  # autograd refuses parameters that are inference tensors
def fast_copy(model: nn.Module, precision: Precision, layers: Collection[str]) -> nn.Module:
    """Return an optimised copy of a model in evaluation mode, or the model itself if it cannot be copied."""
    shared = {id(tensor): _shared(tensor) for tensor in (*model.parameters(), *model.buffers())}
    try:
        fast = for_evaluation(copy.deepcopy(model, shared))
    except Exception:  # a module may hold objects that cannot be copied: locks, graphs, files
        return model
    graph = _traced(fast)
    if graph is not None:
        for conv, norm in _foldable(graph, layers):
            _fold(fast, conv, norm)
        if precision == "bf16":
            for name, wrap in _float32_steps(graph).items():
                _replace(fast, name, wrap(fast.get_submodule(name)))
    for name, module in fast.named_modules():
        if type(module) is nn.Conv2d and not _is_hooked(module):
            _lay_out(module, precision if graph is not None else "fp32")
        elif type(module) is nn.Linear and precision == "bf16" and graph is not None and name in graph.names:
            module.weight = _frozen(module.weight.bfloat16())
    return fast


class _Graph:
    """The modules that a forward pass calls exactly once, and how their outputs are used."""

    def __init__(self, graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        calls = [node for node in graph.nodes if node.op == "call_module"]
        times = dict[int, int]()
        for node in calls:
            times[id(modules[node.target])] = times.get(id(modules[node.target]), 0) + 1
        self.nodes = [node for node in calls if times[id(modules[node.target])] == 1]
        self.names = frozenset(str(node.target) for node in self.nodes)


def _traced(model: nn.Module) -> _Graph | None:
    """Trace one forward pass symbolically; return None for a model that cannot be traced."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # for example control flow that depends on the data; a model may raise any error
        return None
    return _Graph(graph, dict(model.named_modules()))


def _foldable(graph: _Graph, layers: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of a convolution and the batch norm that is its only reader, unless a layer captures its output."""
    for node in graph.nodes:
        norm = graph.modules[str(node.target)]
        before = node.args[0] if node.args else None
        if not (isinstance(before, fx.Node) and before.op == "call_module" and str(before.target) in graph.names):
            continue
        conv = graph.modules[str(before.target)]
        private = len(before.users) == 1 and not _is_hooked(norm) and not _is_hooked(conv)
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None and private:
            pair = str(before.target), str(node.target)
            if not any(_is_between(pair[0], layer, pair[1]) for layer in layers):
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


def _float32_steps(graph: _Graph) -> "dict[str, type[_InFloat32 | _ToFloat32]]":
    """Choose the last steps that run in float32: the linear layer of the logits, and the module before the pooling."""
    steps: dict[str, type[_InFloat32 | _ToFloat32]] = {}
    for node in reversed(graph.nodes):
        name, module = str(node.target), graph.modules[str(node.target)]
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.Flatten | nn.Dropout) or _is_hooked(module):
            continue
        if steps or not isinstance(module, nn.Linear):
            steps[name] = _ToFloat32
            break
        steps[name] = _InFloat32
    return steps


class _InFloat32(nn.Module):
    """Runs a linear layer in float32: the logits of masked images differ by less than bf16 resolves."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: Tensor) -> Any:  # noqa: ANN401 - the output type of the module
        with torch.autocast(values.device.type, enabled=False):
            return self.module(values.float())


class _ToFloat32(nn.Module):
    """Runs a module and converts its output to float32, so that pooling does not round it again."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the signature of the module
        output = self.module(*args, **kwargs)
        return output.float() if isinstance(output, Tensor) else output


def _lay_out(conv: nn.Conv2d, precision: Precision) -> None:
    weight = conv.weight.bfloat16() if precision == "bf16" else conv.weight
    conv.weight = _frozen(weight.contiguous(memory_format=torch.channels_last))


def _shared(tensor: Tensor) -> Tensor:
    """Return a tensor that shares its memory and requires no gradient."""
    return _frozen(tensor) if isinstance(tensor, nn.Parameter) else tensor.detach()


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_between(conv: str, layer: str, norm: str) -> bool:
    """Tell whether a layer may give what a convolution passes on to its norm: as an output, or as an input."""
    name = LayerName.parse(layer)
    before, after = (norm, conv) if name.is_input else (conv, norm)
    return _lies_in(before, name.module) and not _lies_in(after, name.module)


def _lies_in(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")
