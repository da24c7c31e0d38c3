"""Lists what a model computes in one forward pass: its modules of torch.nn, and the functions called outside of them.

Attribution methods that hook modules see nothing of a function: `functional.relu` is passed over without a word. So
those methods ask here first.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_ATTRIBUTES = ("__get__", "__set__", "__len__", "__hash__", "size", "dim", "numel", "is_floating_point", "detach")
"""Functions that read a tensor and compute nothing that depends on the image."""


@dataclass(frozen=True, order=True)
class Function:
    """A function that was called outside of the modules of torch.nn.

    Attributes:
        name: the name without `torch` or `Tensor`, such as `relu`.
        inside: name of the module in whose forward method it was called; "" for the model itself.
        inputs: number of its tensors that depend on the image, at most 2.
    """

    name: str
    inside: str
    inputs: int

    def __str__(self) -> str:
        return f"{self.name} in the forward method of {repr(self.inside) if self.inside else 'the model'}"


@dataclass(frozen=True)
class Operations:
    """The operations of one forward pass.

    Attributes:
        calls: how often each module of torch.nn without children ran, by name.
        functions: functions of tensors that depend on the image, each once, in order.
    """

    calls: Mapping[str, int]
    functions: tuple[Function, ...]


def is_basic(module: nn.Module) -> bool:
    """Tell whether a module is one of torch.nn that has no parts, so that its type says what it computes."""
    return type(module).__module__.startswith("torch.nn.modules") and not any(module.children())


def operations(model: nn.Module, run: Callable[[], object]) -> Operations:
    """Watch one forward pass.

    Args:
        model: the model, whose parameters need no gradients: what requires gradients depends on the image.
        run: runs the model once on images that require gradients.
    """
    calls, inside = Counter[str](), list[tuple[str, bool]]()
    seen = _Seen(inside)
    with _places(model, inside, calls), seen:
        run()
    return Operations(dict(calls), tuple(dict.fromkeys(seen.functions)))


class _Seen(TorchFunctionMode):
    """Records the functions that are called outside of basic modules."""

    def __init__(self, inside: list[tuple[str, bool]]) -> None:
        super().__init__()
        self.functions: list[Function] = []
        self._inside = inside

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the function returns
        name = str(getattr(func, "__name__", func))
        place, is_inside_basic = self._inside[-1] if self._inside else ("", False)
        if not is_inside_basic and name not in _ATTRIBUTES:
            inputs = sum(tensor.requires_grad for tensor in _tensors((args, kwargs or {})))
            if inputs:
                self.functions.append(Function(name, place, min(inputs, 2)))
        return func(*args, **(kwargs or {}))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


@contextmanager
def _places(model: nn.Module, inside: list[tuple[str, bool]], calls: Counter[str]) -> Iterator[None]:
    """Keep the names of the modules whose forward method runs, and count the calls of basic ones."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            basic = is_basic(module)
            enter, leave = _entering(inside, calls, name, basic), _leaving(inside)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


def _entering(inside: list[tuple[str, bool]], calls: Counter[str], name: str, basic: bool) -> Callable[..., None]:
    def enter(_module: nn.Module, _args: object) -> None:
        calls[name] += basic
        inside.append((name, basic or bool(inside and inside[-1][1])))

    return enter


def _leaving(inside: list[tuple[str, bool]]) -> Callable[..., None]:
    def leave(_module: nn.Module, _args: object, _output: object) -> None:
        inside.pop()

    return leave


def linear_in_image(function: Function) -> bool:
    """Tell whether a function is linear (or affine) in the image: it moves, adds or scales numbers."""
    return function.name in MOVING or function.name in _ADDING or (function.name in _SCALING and function.inputs == 1)


MOVING = frozenset({
    "flatten", "reshape", "view", "permute", "transpose", "movedim", "swapaxes", "swapdims", "t", "contiguous", "clone",
    "squeeze", "unsqueeze", "__getitem__", "chunk", "split", "unbind", "narrow", "select", "expand", "expand_as", "to",
    "float", "dropout", "dropout2d", "feature_dropout", "gather", "index_select", "cat", "stack", "roll", "flip",
    "unflatten", "pixel_shuffle", "channel_shuffle",
})  # fmt: skip
"""Functions that move numbers of the image and change none (dropout does nothing in evaluation mode)."""
_ADDING = frozenset({
    "add", "add_", "__add__", "__iadd__", "__radd__", "sub", "sub_", "rsub", "__sub__", "__isub__", "__rsub__", "neg",
    "mean", "sum", "avg_pool2d", "adaptive_avg_pool2d", "pad",
})  # fmt: skip
_SCALING = frozenset({
    "mul", "mul_", "__mul__", "__imul__", "__rmul__", "div", "div_", "__truediv__", "__itruediv__", "conv2d", "linear",
    "batch_norm", "matmul", "__matmul__",
})  # fmt: skip
