"""Observes what a model returns for a few images, and which functions made the numbers.

Legend: B images, N outputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pipeline.errors import ConfigError
from pipeline.model.outputs import OutputKey, by_class, how_picked, picked
from pipeline.model.recording import evaluating
from pipeline.model.tasks.base import Task

SUM_TOLERANCE = 1e-4
"""How far a row of probabilities may be from the sum 1."""
SOFTMAX = ("Softmax", "SafeSoftmax")
LINEAR = ("Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Addmv", "Convolution", "MkldnnConvolution", "Linear")
"""Beginnings of the names of functions of linear layers: their outputs are logits, even if they are in [0, 1]."""
_VIEWS = (
    "View", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "Alias", "ToCopy", "Flatten", "Unsafe",
    "Expand", "Permute", "Transpose", "TBackward", "Copy", "Split", "Unbind",
)  # fmt: skip
"""Beginnings of the names of autograd functions that do not change a number."""
_AFFINE = (
    *_VIEWS, "Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Mean", "Sum", "Stack", "Cat", "AvgPool", "AdaptiveAvgPool",
    "Upsample",
)  # fmt: skip
"""Beginnings of the names of functions that shift, scale, average or join numbers, but for those of linear layers."""
_MOST_NODES = 256
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Observed:
    """What a model returned for the trial images.

    Attributes:
        values_BN: the outputs, one row per image.
        end: name of the autograd function that made the outputs, looking through reshapes; "" if there is none.
        sources: names of the functions whose results the outputs are, but for shifts, scales, means and joins.
        are_cosines: whether the outputs are products of vectors of length one.
        last_module: name and class of the last module that ran and has no children.
        picked: which part of the returned value is read, where the user has not said it.
        is_headless: whether the model seems to be a feature extractor: the last module with parameters is a
            normalisation of N channels, or the model states no classes, as those of timm do.
    """

    values_BN: Tensor
    end: str
    sources: frozenset[str]
    are_cosines: bool
    last_module: str
    picked: str
    is_headless: bool

    @property
    def is_linear(self) -> bool:
        """Whether a linear layer made the outputs."""
        return self.end.startswith(LINEAR)

    def only_from(self, *names: str) -> bool:
        """Tell whether the outputs are results of nothing but these functions."""
        return bool(self.sources) and all(source.startswith(names) for source in self.sources)

    def partly_from(self, *names: str) -> bool:
        """Tell whether one of these functions is among those that made the outputs."""
        return any(source.startswith(names) for source in self.sources)


def observe_outputs(model: nn.Module, pixels_BCHW: Tensor, key: OutputKey | None, task: Task | None = None) -> Observed:
    """Run a model once with autograd, and observe its outputs and how it made them."""
    ran: list[tuple[str, nn.Module]] = []
    handles = [
        module.register_forward_hook(lambda own, _inputs, _output, name=name: ran.append((name, own)))
        for name, module in model.named_modules()
        if not next(module.children(), None)
    ]
    try:
        with evaluating(model), torch.inference_mode(False), torch.enable_grad():
            returned = model(pixels_BCHW.detach().requires_grad_().clone())
    finally:
        for handle in handles:
            handle.remove()
    outputs = picked(returned, key) if task is None else task.observed(returned, key)
    values_BN = by_class(outputs) if task is None else by_class(task.outputs(returned, key))
    if len(values_BN) != len(pixels_BCHW):
        raise ConfigError.one(
            "model.outputs",
            f"the model returns {len(values_BN)} rows for {len(pixels_BCHW)} images",
            "wrap the model so that it returns one row per image",
        )
    if values_BN.is_inference():
        raise ConfigError.one(
            "model.name",
            "the forward pass of the model runs under torch.inference_mode, whose results cannot be differentiated",
            "take torch.inference_mode off the model's forward",
        )
    last = f"'{ran[-1][0]}' ({type(ran[-1][1]).__name__})" if ran else "none"
    parametric = [module for _, module in ran if next(module.parameters(recurse=False), None) is not None]
    made = values_BN.grad_fn if task is None else outputs.grad_fn
    return Observed(
        values_BN.detach().float() if task is None else _rows(outputs),
        _name(_behind_views(made)),
        frozenset(map(_name, _sources(made))),
        _are_cosines(_behind_views(made)),
        last,
        "" if key is not None else how_picked(returned, outputs),
        vars(model).get("num_classes") == 0 or _ends_in_norm(parametric, values_BN.shape[1]),
    )


def _rows(outputs: Tensor) -> Tensor:
    """Return outputs (B, N, ...), of pixels for example, as rows of N numbers."""
    outputs = outputs.detach().float()
    return outputs.movedim(1, -1).flatten(0, -2) if outputs.ndim > 1 else outputs[:, None]


def _name(node: Any) -> str:  # noqa: ANN401 - a node of autograd, or None
    return "" if node is None else str(node.name())


def _before(node: Any) -> list[Any]:  # noqa: ANN401
    """Return the functions whose results a function uses, but for those that hold a parameter."""
    before = [following for following, _ in node.next_functions if following is not None]
    return [each for each in before if not _name(each).endswith("AccumulateGrad")]


def _behind_views(node: Any) -> Any:  # noqa: ANN401
    while node is not None and _name(node).startswith(_VIEWS):
        node = next(iter(_before(node)), None)
    return node


def _is_source(node: Any) -> bool:  # noqa: ANN401
    return not _name(node).startswith(_AFFINE)


def _is_square(node: Any) -> bool:  # noqa: ANN401
    """Tell whether a function multiplies a result with itself, or two shifts and scales of one result."""
    before = _before(node)
    if not _name(node).startswith("Mul") or len(before) != 2:
        return False
    first, second = (set(_reached(each, _is_source)) for each in before)
    return first == second and bool(first)


def _sources(node: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the functions whose results reach the outputs by nothing but shifts, scales, means and joins."""
    return _reached(node, lambda each: _is_source(each) or _is_square(each))


def _reached(node: Any, is_end: Callable[[Any], bool]) -> Iterator[Any]:  # noqa: ANN401
    """Yield the first functions of a kind on every way back from a function."""
    known, waiting = set[Any](), [node]
    while waiting and len(known) < _MOST_NODES:
        each = waiting.pop()
        if each is None or each in known:
            continue
        known.add(each)
        if is_end(each):
            yield each
        else:
            waiting += _before(each)


def _are_cosines(end: Any) -> bool:  # noqa: ANN401
    """Tell whether a function is a product, without a scale, of vectors that were divided by their lengths."""
    if _name(end).startswith("Sum"):  # as functional.cosine_similarity
        end = _behind_views(next(iter(_before(end)), None))
    if not _name(end).startswith(("Mul", *LINEAR)):
        return False
    factors = [_behind_views(each) for each in _before(end)]
    return bool(factors) and all(_name(each).startswith("Div") and _divides_by_length(each) for each in factors)


def _divides_by_length(node: Any) -> bool:  # noqa: ANN401
    each = next(iter(_before(node)[1:]), None)
    while _name(each).startswith(("Clamp", *_AFFINE)):  # by a length that is at least a small number, for example
        each = next(iter(_before(each)), None)
    return _name(each).startswith(("Norm", "LinalgVectorNorm", "Sqrt"))


def _ends_in_norm(parametric: list[nn.Module], width: int) -> bool:
    """Tell whether a normalisation of `width` channels is the last module with parameters, after no classifier."""
    if not parametric or not isinstance(parametric[-1], _NORMS):
        return False
    norm, before = parametric[-1], parametric[-2] if len(parametric) > 1 else None
    channels = norm.weight.numel() if isinstance(norm.weight, Tensor) else 0
    return channels == width and not (isinstance(before, nn.Linear) and before.out_features == width)
