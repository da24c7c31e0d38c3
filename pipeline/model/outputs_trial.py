"""Decides from a few images what a model's outputs are, and refuses what cannot be decided or contradicts the run file.

Legend: B images, N outputs.
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.outputs import OutputKey, OutputKind, Outputs
from pipeline.model.outputs_rules import no_logits, sums_to_one, within_unit
from pipeline.model.outputs_seen import SOFTMAX, SUM_TOLERANCE, Observed, observe_outputs
from pipeline.model.tasks.base import Task

_WHERE = "model.outputs"
_ENDS = dict.fromkeys(SOFTMAX, "softmax") | {"Sigmoid": "sigmoid"}
_CONTRAST = 1000.0
"""Logits grow with the contrast of an image, probabilities stay in [0, 1]."""


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

    def strong_BN() -> Tensor:
        return observe_outputs(model, _CONTRAST * pixels_BCHW, key, task).values_BN

    _CHECKS[kind](seen, _is_bounded(seen, kind, strong_BN))
    if kind == "auto":
        return Outputs("softmax", key, task=task), _notes(kind, seen)
    detects = task is not None and task.may_miss
    independent = (
        kind == "probabilities" and seen.values_BN.shape[1] > 1 and (detects or not sums_to_one(seen.values_BN))
    )
    notes = () if task is not None and not task.is_guessed else _notes(kind, seen)
    return Outputs(kind, key, independent, task), notes


def _is_bounded(seen: Observed, kind: str, strong_BN: Callable[[], Tensor]) -> bool:
    """Tell whether outputs lie in [0, 1] for every image, as far as the function that made them and contrast show.

    Args:
        seen: what the model returned for the trial images.
        kind: what the user states, which only what is certain contradicts; "auto" where nothing is stated.
        strong_BN: returns the outputs for images of much contrast.
    """
    if kind == "raw" or not within_unit(seen.values_BN):
        return False
    if seen.end in _ENDS:
        return True
    if seen.is_linear and kind != "probabilities":
        return False
    values_BN = strong_BN()  # an undefined number, as of exp(z) / (1 + exp(z)), is not outside of [0, 1]
    return not bool(((values_BN < -SUM_TOLERANCE) | (values_BN > 1 + SUM_TOLERANCE)).any())


def _kind_of(task: Task | None, kind: Literal["auto"] | OutputKind) -> Literal["auto"] | OutputKind:
    """Return the kind of outputs to look for: what "auto" means for the task, or what the user states."""
    if task is None or kind in task.kinds:
        return kind
    if kind == "auto":
        return kind if task.is_guessed else task.default_kind
    raise ConfigError.one(
        _WHERE, f"{task.name} has no outputs of the kind {kind}", f"set it to auto or {' or '.join(task.kinds)}"
    )


def _check_auto(seen: Observed, is_bounded: bool) -> None:
    outputs = seen.values_BN.shape[1]
    if outputs == 1:
        _check_single(seen, is_bounded)
    if sums_to_one(seen.values_BN):
        raise _refused(
            seen,
            "the outputs are probabilities already: each row sums to 1",
            "set probabilities, or better, explain the model without its softmax",
        )
    if seen.end == "Sigmoid" or is_bounded:
        certain = seen.end in _ENDS
        raise _refused(
            seen,
            "all outputs lie in [0, 1], as after a sigmoid",
            "set probabilities" if certain else "set probabilities, or raw to explain the outputs as they are",
        )
    _check_rules("auto", seen)
    if seen.is_headless:
        raise _refused(
            seen,
            f"the model seems to be a feature extractor: its {outputs} outputs come from no classifier",
            "use the model with its classifier, or set softmax, sigmoid or raw to explain the outputs as they are",
        )


def _check_single(seen: Observed, is_bounded: bool) -> None:
    """Refuse one output per image, whose meaning only the user knows, with the advice that fits it."""
    probability = seen.end == "Sigmoid" or is_bounded
    if not probability:
        _check_rules("auto", seen)
    raise ConfigError.one(
        _WHERE,
        "the model has one output per image, and auto cannot tell what it is",
        "probabilities"
        if probability
        else "set it to binary for two classes, sigmoid for one label, raw for a number such as a regression",
    )


def _check_softmax(seen: Observed, is_bounded: bool) -> None:
    if seen.values_BN.shape[1] == 1:
        raise ConfigError.one(
            _WHERE, "softmax needs two outputs or more, but the model has one", "set binary, sigmoid or raw"
        )
    _check_logits("softmax", seen, is_bounded)


def _check_sigmoid(seen: Observed, is_bounded: bool) -> None:
    _check_logits("sigmoid", seen, is_bounded)


def _check_binary(seen: Observed, is_bounded: bool) -> None:
    outputs = seen.values_BN.shape[1]
    if outputs != 1:
        raise ConfigError.one(
            _WHERE,
            f"binary needs one output per image, but the model has {outputs}",
            "set softmax where exactly one class is true, sigmoid for independent labels",
        )
    _check_logits("binary", seen, is_bounded)


def _check_logits(kind: str, seen: Observed, is_bounded: bool) -> None:
    """Refuse outputs that are certain not to be the logits that a kind needs."""
    one = kind == "binary"
    needs = f"{kind} needs {'a logit, but the output' if one else 'logits, but the outputs'}"
    made = _ENDS.get(seen.end)
    if made is not None or sums_to_one(seen.values_BN):
        are = "is" if one else "are"
        raise _refused(seen, f"{needs} {are} made by a {made or 'softmax'} already", "set probabilities")
    if is_bounded:
        raise _refused(
            seen,
            f"{needs} {'lies' if one else 'lie'} in [0, 1] for images of any contrast",
            "set probabilities, or raw to explain the outputs as they are",
        )
    _check_rules(kind, seen)


def _check_rules(kind: str, seen: Observed) -> None:
    if (reason := no_logits(kind, seen)) is not None:
        raise _refused(seen, reason.what, reason.advice)


def _check_probabilities(seen: Observed, is_bounded: bool) -> None:
    low, high = float(seen.values_BN.min()), float(seen.values_BN.max())
    if low < -SUM_TOLERANCE or high > 1 + SUM_TOLERANCE:
        raise ConfigError.one(
            _WHERE,
            f"probabilities lie in [0, 1], but the trial images give outputs from {low:.3g} to {high:.3g}",
            "set softmax, sigmoid, binary or raw",
        )
    if within_unit(seen.values_BN) and not is_bounded:
        raise _refused(
            seen,
            "probabilities lie in [0, 1], but images of much contrast give outputs outside of it",
            "set softmax, sigmoid, binary or raw",
        )


def _check_raw(_seen: Observed, _is_bounded: bool) -> None:
    """Accept any number."""


_CHECKS = {
    "auto": _check_auto,
    "softmax": _check_softmax,
    "sigmoid": _check_sigmoid,
    "binary": _check_binary,
    "probabilities": _check_probabilities,
    "raw": _check_raw,
}


def _refused(seen: Observed, what: str, advice: str) -> ConfigError:
    return ConfigError.one(_WHERE, f"{what} (last module: {seen.last_module})", advice)


def _notes(kind: Literal["auto"] | OutputKind, seen: Observed) -> tuple[str, ...]:
    notes = [seen.picked] if seen.picked else []
    if kind == "probabilities":
        notes.append(
            "outputs: probabilities explains log-probabilities; explaining the logits before them is more precise "
            f"(last module: {seen.last_module})"
        )
    return tuple(notes)
