"""Records the attention weights of every layer in one forward pass, whatever library the model comes from.

Three ways of computing attention are understood: `scaled_dot_product_attention`, which timm and transformers call;
`nn.MultiheadAttention`, which torchvision uses, with torch's fast path; and an explicit softmax whose result multiplies
the values. The model's own computation is left as it is: weights that it does not hold are computed beside it, so that
its outputs do not change.

No weight is part of the autograd graph. For the output O = A V of an attention with weights A and values V, the
gradient of a score s with respect to the weights is ds/dA = ds/dO V^T, so it suffices that O is part of the graph.

Legend: P rows of a pass, h heads, T tokens, d numbers of a token in one head, K channels.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

Split = Callable[[Tensor], Tensor]
"""Converts the gradient of what an attention returns to that of its heads, (P, h, T, d)."""

_SOFTMAXES = (functional.softmax, torch.softmax, torch.Tensor.softmax)
_CONVERSIONS = (functional.dropout, torch.Tensor.to, torch.Tensor.type_as, torch.Tensor.float, torch.Tensor.contiguous)
"""Functions that leave weights what they are, in evaluation mode."""
_PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


@dataclass(frozen=True)
class AttentionWanted:
    """What a forward pass records of the attention; all of it is off where no method asks.

    Attributes:
        weights: the weights of each layer, averaged over its heads.
        gradients: what the gradients of the target logit with respect to all weights need.
        readouts: what the gradients of the scores that are read from each layer's tokens need.
    """

    weights: bool = False
    gradients: bool = False
    readouts: bool = False

    @property
    def is_differentiated(self) -> bool:
        """Whether the autograd graph must reach back to the first attention."""
        return self.gradients or self.readouts


NO_ATTENTION = AttentionWanted()


@dataclass(frozen=True)
class AttentionCall:
    """The attention of one layer in one pass.

    Attributes:
        shape: shape of the weights, (P, h, T, T) for attention between the tokens of an image.
        mean_PTT: the weights, averaged over the heads, float32.
        weights_PhTT: the weights; None where no gradients are wanted.
        values_PhTd: what the weights multiply.
        output: what the attention returned, part of the autograd graph if there is one.
        split: converts gradients of `output`.
    """

    shape: tuple[int, ...]
    mean_PTT: Tensor
    weights_PhTT: Tensor | None
    values_PhTd: Tensor
    output: Tensor
    split: Split

    def gradient(self, grad_of_output: Tensor) -> Tensor:
        """Return the gradient of a score with respect to the weights, (P, h, T, T), from that of the output."""
        return self.split(grad_of_output).float() @ self.values_PhTd.float().mT

    def product(self, grad_of_output: Tensor) -> Tensor:
        """Return mean_h ReLU(gradient * weights), (P, T, T)."""
        assert self.weights_PhTT is not None, "the weights of all heads were asked for"
        return (self.gradient(grad_of_output) * self.weights_PhTT).relu().mean(1)


@dataclass(frozen=True)
class AttentionRecord:
    """What one pass recorded of the attention.

    Attributes:
        calls: the attention of each layer, in order.
        tokens: the tokens (P, T, K) that each block but the last passes on, in order; empty unless readouts are wanted.
    """

    calls: list[AttentionCall] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)


NO_RECORD = AttentionRecord()


class AttentionRecorder(TorchFunctionMode):
    """Sees every call of a torch function in a pass, and records those that compute attention.

    Args:
        record: filled with the calls.
        wanted: what is recorded.
    """

    def __init__(self, record: AttentionRecord, wanted: AttentionWanted) -> None:
        super().__init__()
        self._record, self._wanted = record, wanted
        self._softmaxes = dict[int, Tensor]()  # they are kept alive, so that their ids stay theirs
        self.foreign = 0

    @property
    def is_unreadable(self) -> bool:
        """Whether a function computed attention in a way that is not understood."""
        square = any(weights.shape[-1] == weights.shape[-2] for weights in self._softmaxes.values())
        return square or self.foreign > 0

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - as torch declares it
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call a function of torch, and record it if it is a step of an attention."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._fused(output, *args, **kwargs)
        if func is functional.multi_head_attention_forward:  # outside of the module, whose forward is not seen here
            self.foreign += 1
        elif func in _SOFTMAXES and _is_over_keys(output, args, kwargs):
            self._softmaxes[id(output)] = output
        elif args and id(args[0]) in self._softmaxes and func in (*_CONVERSIONS, *_PRODUCTS):
            return self._after_softmax(func, args, output)
        return output

    def add(self, weights: Tensor, values: Tensor, output: Tensor, split: Split) -> Tensor:
        """Record an attention, and return what the model goes on with instead of its output.

        Where gradients are wanted, the first output becomes a leaf of the autograd graph, and autograd stays on until
        the caller's `torch.no_grad()` ends.
        """
        differentiated = self._wanted.is_differentiated
        if differentiated and not output.requires_grad:
            output = output.detach().requires_grad_()
            torch.set_grad_enabled(True)
        weights = weights.detach().float()
        mean_PTT = weights.mean(1) if weights.ndim == 4 else weights
        kept = weights if self._wanted.gradients else None
        call = AttentionCall(tuple(weights.shape), mean_PTT, kept, values.detach(), output, split)
        self._record.calls.append(call)
        return output.clone() if differentiated else output

    def _fused(self, output: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - of torch
        """Record a fused attention; the same call on the identity matrix instead of values gives the weights."""
        with torch.no_grad(), torch.autocast(query.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            one_TT = torch.eye(key.shape[-2], device=key.device).expand(*key.shape[:-1], -1)
            weights = functional.scaled_dot_product_attention(
                query.float(), key.float(), one_TT, *map(_in_float32, args),
                **{name: _in_float32(value) for name, value in kwargs.items()},
            )  # fmt: skip
        return self.add(weights, _for_heads(value, query), output, _unchanged)

    def _after_softmax(self, func: object, args: tuple[Any, ...], output: Tensor) -> Tensor:
        weights = self._softmaxes.pop(id(args[0]))
        if func in _CONVERSIONS:
            self._softmaxes[id(output)] = output
            return output
        return self.add(weights, args[1], output, _unchanged)


@contextmanager
def attending(network: nn.Module, recorder: AttentionRecorder) -> Iterator[None]:
    """Record the attention of a network for the length of one pass."""
    with ExitStack() as stack:
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention) and type(module).forward is nn.MultiheadAttention.forward:
                stack.enter_context(_watched(module, recorder))
        stack.enter_context(recorder)
        yield


@contextmanager
def _watched(module: nn.MultiheadAttention, recorder: AttentionRecorder) -> Iterator[None]:
    """Record the calls of a module, which runs as if no torch function were watched, and so keeps its fast path."""
    before = vars(module).get("forward")
    plain = module.forward

    def forward(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:  # noqa: ANN401 - of the module
        with torch._C.DisableTorchFunction():
            output, returned = plain(*args, **kwargs)
            weights, values = _weights_of(module, args, kwargs)
            return recorder.add(weights, values, output, lambda grads: _split(module, grads)), returned

    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if before is not None:
            vars(module)["forward"] = before


@torch.no_grad()
def _weights_of(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the weights (P, h, T, T) and the values (P, h, T, d) of a call, computed beside it."""
    given = inspect.signature(nn.MultiheadAttention.forward).bind(module, *args, **kwargs).arguments
    wanted = given | {"need_weights": True, "average_attn_weights": False}
    with torch.autocast(given["query"].device.type, enabled=False):
        floats = {name: _in_float32(value) for name, value in wanted.items() if name != "self"}
        _, weights = nn.MultiheadAttention.forward(module, **floats)
        packed, width = module.in_proj_weight, module.embed_dim
        weight = module.v_proj_weight if packed is None else packed[2 * width :]
        bias = None if module.in_proj_bias is None else module.in_proj_bias[2 * width :]
        values = functional.linear(floats["value"], weight, bias)
    assert weights is not None, "they were asked for"
    return weights, _heads(module, values)


def _split(module: nn.MultiheadAttention, grads: Tensor) -> Tensor:
    """Convert the gradient of a module's output to that of its heads, before the output projection."""
    return _heads(module, grads @ module.out_proj.weight.detach())


def _heads(module: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    batched = tokens if module.batch_first else tokens.transpose(0, -2)
    return batched.reshape(*batched.shape[:-1], module.num_heads, -1).transpose(-2, -3)


def _for_heads(values: Tensor, query: Tensor) -> Tensor:
    """Repeat values that groups of heads share, as `enable_gqa` does."""
    shared = query.ndim == 4 and query.shape[1] != values.shape[1]
    return values.repeat_interleave(query.shape[1] // values.shape[1], 1) if shared else values


def _is_over_keys(output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:  # noqa: ANN401 - of torch
    """Tell whether a softmax runs over the last of four dimensions, as over the keys of an attention."""
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return isinstance(output, Tensor) and output.ndim == 4 and dim in (-1, 3)


def _in_float32(value: Any) -> Any:  # noqa: ANN401 - arguments of torch
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _unchanged(grads: Tensor) -> Tensor:
    return grads
