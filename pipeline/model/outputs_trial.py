"""Decides from a few images what a model's outputs are, and refuses what cannot be decided or contradicts the run file.

Legend: B images, N outputs.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pipeline.errors import ConfigError
from pipeline.model.outputs import OutputKey, OutputKind, Outputs, by_class, how_picked, picked
from pipeline.model.recording import evaluating
from pipeline.model.tasks.base import Task

_WHERE = "model.outputs"
_SUM_TOLERANCE = 1e-4
"""How far a row of probabilities may be from the sum 1."""
_ENDS = {"SoftmaxBackward0": "softmax", "SafeSoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}
_LOG_SIGMOID = "LogSigmoidBackward0"
_LINEAR = ("Addmm", "Mm", "Bmm", "Baddbmm", "Convolution", "MkldnnConvolution", "Linear")
"""Beginnings of the names of functions of linear layers: their outputs are logits, even if they are in [0, 1]."""
_CONTRAST = 1000.0
"""Logits grow with the contrast of an image, probabilities stay in [0, 1]."""
_VIEWS = ("View", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "Alias", "ToCopy", "Flatten", "Unsafe")
"""Beginnings of the names of autograd functions that do not change a number."""
_BOUNDED = ("Sigmoid", "Softmax", "SafeSoftmax", "Clamp", "Hardtanh", "Hardsigmoid", "Div", "Exp", "Where")
"""Beginnings of the names of functions that may make probabilities; a linear layer, a mean or a sum does not."""
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Observed:
    """What a model returned for the trial images.

    Attributes:
        values_BN: the outputs, one row per image.
        end: softmax or sigmoid, if one of them made the outputs.
        is_bounded: whether the function that made them may have bounded them to [0, 1], or is unknown, or whether they
            stay there for images of much contrast.
        is_linear: whether a linear layer made them.
        is_log_sigmoid: whether the logarithm of a sigmoid made them.
        last_module: name and class of the last module that ran and has no children.
        picked: which part of the returned value is read, where the user has not said it.
        is_headless: whether the model seems to be a feature extractor: the last module with parameters is a
            normalisation of N channels, or the model states no classes, as those of timm do.
    """

    values_BN: Tensor
    end: str | None
    is_bounded: bool
    is_linear: bool
    is_log_sigmoid: bool
    last_module: str
    picked: str
    is_headless: bool


def find_outputs(
    model: nn.Module,
    pixels_BCHW: Tensor,
    kind: Literal["auto"] | OutputKind,
    key: OutputKey | None = None,
    task: Task | None = None,
) -> tuple[Outputs, tuple[str, ...]]:
    """Return how the model's outputs are read, with notes for the user.

    Args:
        model: the model; it runs once.
        pixels_BCHW: at least two different images, normalised.
        kind: what the user states; "auto" takes softmax, unless the outputs are or may be something else.
        key: the part of the returned value that holds the logits.
        task: makes outputs (B, N) of the returned value; None for a classifier.

    Raises:
        ConfigError: the outputs cannot be logits or probabilities of that kind, or "auto" cannot decide.
    """
    kind = _kind_of(task, kind)
    seen = observe_outputs(model, pixels_BCHW, key, task)
    if kind == "auto":
        if not seen.is_linear and not seen.is_bounded and _within_unit(seen):
            strong = observe_outputs(model, _CONTRAST * pixels_BCHW, key, task)
            seen = replace(seen, is_bounded=_within_unit(strong))
        _check_auto(seen)
        return Outputs("softmax", key, task=task), _notes(kind, seen)
    _CHECKS[kind](seen)
    detects = task is not None and task.may_miss
    independent = kind == "probabilities" and seen.values_BN.shape[1] > 1 and (detects or not _sums_to_one(seen))
    notes = () if task is not None and not task.is_guessed else _notes(kind, seen)
    return Outputs(kind, key, independent, task), notes


def _kind_of(task: Task | None, kind: Literal["auto"] | OutputKind) -> Literal["auto"] | OutputKind:
    """Return the kind of outputs to look for: what "auto" means for the task, or what the user states."""
    if task is None or kind in task.kinds:
        return kind
    if kind == "auto":
        return kind if task.is_guessed else task.default_kind
    raise ConfigError.one(
        _WHERE, f"{task.name} has no outputs of the kind {kind}", f"set it to auto or {' or '.join(task.kinds)}"
    )


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
            _WHERE,
            f"the model returns {len(values_BN)} rows for {len(pixels_BCHW)} images",
            "wrap the model so that it returns one row per image",
        )
    last = f"'{ran[-1][0]}' ({type(ran[-1][1]).__name__})" if ran else "none"
    parametric = [module for _, module in ran if next(module.parameters(recurse=False), None) is not None]
    end = _end(values_BN if task is None else outputs)
    return Observed(
        values_BN.detach().float() if task is None else _rows(outputs),
        _ENDS.get(end),
        end.startswith(_BOUNDED),
        end.startswith(_LINEAR),
        end == _LOG_SIGMOID,
        last,
        "" if key is not None else how_picked(returned, outputs),
        vars(model).get("num_classes") == 0 or _ends_in_norm(parametric, values_BN.shape[1]),
    )


def _rows(outputs: Tensor) -> Tensor:
    """Return outputs (B, N, ...), of pixels for example, as rows of N numbers."""
    outputs = outputs.detach().float()
    return outputs.movedim(1, -1).flatten(0, -2) if outputs.ndim > 1 else outputs[:, None]


def _end(values_BN: Tensor) -> str:
    """Name the autograd function that made the outputs, looking through reshapes; "" if there is none."""
    node = values_BN.grad_fn
    while node is not None and node.name() not in _ENDS and node.name().startswith(_VIEWS):
        node = next((following for following, _ in node.next_functions if following is not None), None)
    return "" if node is None else node.name()


def _ends_in_norm(parametric: list[nn.Module], width: int) -> bool:
    """Tell whether a normalisation of `width` channels is the last module with parameters, after no classifier."""
    if not parametric or not isinstance(parametric[-1], _NORMS):
        return False
    norm, before = parametric[-1], parametric[-2] if len(parametric) > 1 else None
    channels = norm.weight.numel() if isinstance(norm.weight, Tensor) else 0
    return channels == width and not (isinstance(before, nn.Linear) and before.out_features == width)


def _check_auto(seen: Observed) -> None:
    outputs = seen.values_BN.shape[1]
    if outputs == 1:
        stated = (
            "probabilities" if seen.end == "sigmoid" else "binary for two classes, sigmoid for one label, raw for a"
        )
        raise ConfigError.one(
            _WHERE,
            "the model has one output per image, and auto cannot tell what it is",
            stated if seen.end == "sigmoid" else f"set it to {stated} number such as a regression",
        )
    if _sums_to_one(seen):
        raise ConfigError.one(
            _WHERE,
            f"the outputs are probabilities already: each row sums to 1 (last module: {seen.last_module})",
            "set probabilities, or better, explain the model without its softmax",
        )
    if seen.end == "sigmoid" or (seen.is_bounded and _within_unit(seen)):
        raise ConfigError.one(
            _WHERE,
            f"all outputs lie in [0, 1], as after a sigmoid (last module: {seen.last_module})",
            "set probabilities" if seen.end else "set probabilities, or softmax or sigmoid if they are logits",
        )
    if (total := _equal_sum(seen)) is not None:
        raise ConfigError.one(
            _WHERE,
            f"no output is negative, and each row sums to {total:.6g}, as probabilities times {total:.6g} do "
            f"(last module: {seen.last_module})",
            "explain the model without its softmax, or set softmax if they are logits",
        )
    if seen.is_log_sigmoid:
        raise ConfigError.one(
            _WHERE,
            f"the outputs are logarithms of a sigmoid (last module: {seen.last_module}), and softmax would not undo it",
            "explain the model without its log-sigmoid, and set sigmoid",
        )
    if seen.is_headless:
        raise ConfigError.one(
            _WHERE,
            f"the model seems to be a feature extractor: its {outputs} outputs come from no classifier "
            f"(last module: {seen.last_module})",
            "use the model with its classifier, or set softmax, sigmoid or raw to explain the outputs as they are",
        )


def _check_softmax(seen: Observed) -> None:
    if seen.values_BN.shape[1] == 1:
        raise ConfigError.one(
            _WHERE, "softmax needs two outputs or more, but the model has one", "set binary, sigmoid or raw"
        )
    if seen.end is not None or _sums_to_one(seen):
        raise ConfigError.one(
            _WHERE, f"softmax needs logits, but the outputs are {_how_made(seen)}", "set probabilities"
        )


def _check_sigmoid(seen: Observed) -> None:
    if seen.end is not None or _sums_to_one(seen):
        raise ConfigError.one(
            _WHERE, f"sigmoid needs logits, but the outputs are {_how_made(seen)}", "set probabilities"
        )


def _check_binary(seen: Observed) -> None:
    outputs = seen.values_BN.shape[1]
    if outputs != 1:
        raise ConfigError.one(
            _WHERE,
            f"binary needs one output per image, but the model has {outputs}",
            "set softmax where exactly one class is true, sigmoid for independent labels",
        )
    if seen.end is not None:
        raise ConfigError.one(_WHERE, f"binary needs a logit, but the output is {_how_made(seen)}", "set probabilities")


def _check_probabilities(seen: Observed) -> None:
    low, high = float(seen.values_BN.min()), float(seen.values_BN.max())
    if low < -_SUM_TOLERANCE or high > 1 + _SUM_TOLERANCE:
        raise ConfigError.one(
            _WHERE,
            f"probabilities lie in [0, 1], but the trial images give outputs from {low:.3g} to {high:.3g}",
            "set softmax, sigmoid, binary or raw",
        )


def _check_raw(_seen: Observed) -> None:
    """Accept any number."""


_CHECKS = {
    "softmax": _check_softmax,
    "sigmoid": _check_sigmoid,
    "binary": _check_binary,
    "probabilities": _check_probabilities,
    "raw": _check_raw,
}


def _how_made(seen: Observed) -> str:
    return f"made by a {seen.end or 'softmax'} already (last module: {seen.last_module})"


def _sums_to_one(seen: Observed) -> bool:
    values_BN = seen.values_BN
    return (
        values_BN.shape[1] > 1
        and bool((values_BN >= 0).all())
        and bool(((values_BN.sum(1) - 1).abs() <= _SUM_TOLERANCE).all())
    )


def _equal_sum(seen: Observed) -> float | None:
    """Return the sum of every row, if no output is negative and the rows differ but not their sums."""
    values_BN = seen.values_BN
    sums_B = values_BN.sum(1)
    mean = float(sums_B.mean())
    same = bool(((sums_B - mean).abs() <= _SUM_TOLERANCE * abs(mean)).all())
    alike = float(values_BN.std(0).max()) <= _SUM_TOLERANCE * abs(mean)
    return mean if values_BN.shape[1] > 1 and same and not alike and bool((values_BN >= 0).all()) else None


def _within_unit(seen: Observed) -> bool:
    return bool(((seen.values_BN >= 0) & (seen.values_BN <= 1)).all()) and float(seen.values_BN.std()) > 0


def _notes(kind: Literal["auto"] | OutputKind, seen: Observed) -> tuple[str, ...]:
    notes = [seen.picked] if seen.picked else []
    if kind == "probabilities":
        notes.append(
            "outputs: probabilities explains log-probabilities; explaining the logits before them is more precise "
            f"(last module: {seen.last_module})"
        )
    return tuple(notes)
