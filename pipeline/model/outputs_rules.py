"""Outputs that are no logits, although they look like them: what shows it, and what to do.

Every rule reads the outputs of the trial images and the functions that made them. One that may be wrong holds only
where the user has not stated a kind.

Legend: B images, N outputs.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.model.outputs_seen import SOFTMAX, SUM_TOLERANCE, Observed

_LOG_PROBABILITIES = frozenset({"LogSigmoid", "LogSoftmax"})
_LOGARITHMS = frozenset({"LogSigmoid", "Log", "Log2", "Log10", "Softplus"})
_PROBABILITIES = SOFTMAX | {"Sigmoid"}
_SATURATING = frozenset({"Tanh", "Atan", "Erf"})
_NEVER_NEGATIVE = frozenset(
    {"Cdist", "EuclideanDist", "Norm", "LinalgVectorNorm", "Pow", "Square", "Sqrt", "Abs", "Acos", "Var", "Std"}
    | {"MseLoss", "SmoothL1Loss", "HuberLoss", "L1Loss", "BinaryCrossEntropy", "BinaryCrossEntropyWithLogits"}
    | {"NllLoss", "KlDiv", "Softplus", "Exp", "Elu", "Reciprocal", "Log", "Log1P", "Log2", "Log10"}
)
"""Functions of distances, losses, energies, counts and evidence."""
_UNIT = 1 + SUM_TOLERANCE


class Reason(NamedTuple):
    """Why outputs are no logits, and what to do."""

    what: str
    advice: str


def sums_to_one(values_BN: Tensor) -> bool:
    """Tell whether each row is a distribution."""
    return (
        values_BN.shape[1] > 1
        and bool((values_BN >= 0).all())
        and bool(((values_BN.sum(1) - 1).abs() <= SUM_TOLERANCE).all())
    )


def within_unit(values_BN: Tensor) -> bool:
    """Tell whether all outputs lie in [0, 1] without being the same."""
    return bool(((values_BN >= 0) & (values_BN <= 1)).all()) and float(values_BN.std()) > 0


def made_of_probabilities(seen: Observed) -> Reason | None:
    """Shifted or scaled probabilities, such as 100 softmax(z) or 2 sigmoid(z) - 1."""
    small = float(seen.values_BN.abs().max()) <= _UNIT
    return _made_of(seen) if seen.only_from(SOFTMAX) or (small and seen.only_from(_PROBABILITIES)) else None


def made_of_large_probabilities(seen: Observed) -> Reason | None:
    """Probabilities times a large number, such as percentages; a bound for logits looks the same."""
    return _made_of(seen, ", or set softmax or sigmoid if they are logits") if seen.only_from(_PROBABILITIES) else None


def _made_of(seen: Observed, otherwise: str = "") -> Reason:
    made = "sigmoid" if "Sigmoid" in seen.sources else "softmax"
    advice = f"explain the model without its {made}{otherwise}"
    return Reason(f"the outputs are made by a {made} already, shifted or scaled", advice)


def logarithms_of_probabilities(seen: Observed) -> Reason | None:
    """Logarithms of numbers in [0, 1] that do not sum to 1, as those of a sigmoid."""
    negative = bool((seen.values_BN <= 0).all())
    if not (negative and seen.only_from(_LOGARITHMS)) or _is_log_softmax(seen.values_BN):
        return None
    return Reason(
        "the outputs are logarithms of a sigmoid or of other numbers in [0, 1], and softmax would not undo it",
        "explain the model without its logarithm, and set sigmoid, or binary for one output",
    )


def negative_log_probabilities(seen: Observed) -> Reason | None:
    """The negative of a log-softmax, whose largest output is the least likely class."""
    log_odds = "Sub" in seen.passed
    positive = bool((seen.values_BN >= 0).all()) and seen.only_from(_LOG_PROBABILITIES) and not log_odds
    if positive or (seen.values_BN.shape[1] > 1 and _is_log_softmax(-seen.values_BN)):
        return Reason(
            "the outputs are negative logarithms of probabilities, of which the largest is the least likely class",
            "return the logarithms themselves, or the logits",
        )
    return None


def log_softmax(seen: Observed) -> Reason | None:
    """Logarithms of a softmax, which belong to classes of which exactly one is true."""
    if seen.values_BN.shape[1] > 1 and _is_log_softmax(seen.values_BN):
        return Reason("the outputs are made by a log-softmax: exactly one class is true", "set softmax or auto")
    return None


def several_softmaxes(seen: Observed) -> Reason | None:
    """Log-softmaxes of several heads side by side."""
    totals_B = seen.values_BN.logsumexp(1)
    same = len(totals_B) > 1 and bool(((totals_B - totals_B.mean()).abs() <= SUM_TOLERANCE).all())
    if same and float(totals_B.mean()) > 0.1 and seen.only_from({"LogSoftmax", "Log"}):
        heads = float(totals_B.mean().exp())
        return Reason(
            f"the probabilities of each image sum to {heads:.3g}, as those of {heads:.3g} heads side by side do",
            "return the outputs of one head",
        )
    return None


def equal_sums(seen: Observed) -> Reason | None:
    """Probabilities times a number: no output is negative, and every row has the same sum."""
    values_BN = seen.values_BN
    sums_B = values_BN.sum(1)
    total = float(sums_B.mean())
    same = bool(((sums_B - total).abs() <= SUM_TOLERANCE * abs(total)).all())
    alike = float(values_BN.std(0).max()) <= SUM_TOLERANCE * abs(total)
    if values_BN.shape[1] == 1 or alike or not same or not bool((values_BN >= 0).all()):
        return None
    return Reason(
        f"no output is negative, and each row sums to {total:.6g}, as probabilities times {total:.6g} do",
        "explain the model without its softmax, or set softmax if they are logits",
    )


def equal_differences(seen: Observed) -> Reason | None:
    """Logits of thresholds, as of an ordinal regression: outputs differ by the same amounts for every image."""
    values_BN = seen.values_BN
    if values_BN.shape[1] == 1 or len(values_BN) == 1:
        return None
    means_B1 = values_BN.mean(1, keepdim=True)
    alike = float((values_BN - means_B1).std(0).max()) <= SUM_TOLERANCE * float(means_B1.std())
    if not alike or not float(means_B1.std()) > SUM_TOLERANCE:
        return None
    return Reason(
        "the outputs differ from each other by the same amounts for every image, as the thresholds of an ordinal "
        "regression do, and softmax would give every image the same class",
        "set sigmoid: each output is then the confidence that its threshold is passed",
    )


def never_negative(seen: Observed) -> Reason | None:
    """Distances, energies and evidence."""
    cosine_distance = seen.only_from({"Cosine"}) and "Rsub" in seen.passed
    if not bool((seen.values_BN >= 0).all()) or not (cosine_distance or seen.sources & _NEVER_NEGATIVE):
        return None
    return Reason(
        "no output is negative, as with distances, of which the smallest would be the class, with evidence or with "
        "energies, none of which softmax turns into the model's confidence",
        "return logits (of distances: their negative), or set softmax if that is meant",
    )


def saturating(seen: Observed) -> Reason | None:
    """Outputs of a tanh."""
    if seen.end in _SATURATING and float(seen.values_BN.abs().max()) <= _UNIT:
        return Reason(
            "all outputs lie in [-1, 1], as after a tanh, and softmax would make nearly equal confidences of them",
            "explain the model without its tanh, or set softmax, sigmoid or raw if that is meant",
        )
    return None


def unscaled_cosines(seen: Observed) -> Reason | None:
    """Cosines without the scale that makes them logits."""
    scaled = seen.passed & {"Mul", "Div"}
    if seen.only_from({"Cosine"}) and not scaled and float(seen.values_BN.abs().max()) <= _UNIT:
        return Reason(
            "the outputs are cosines in [-1, 1], and softmax would make nearly equal confidences of them",
            "multiply them by the scale of the training, or set softmax if there was none",
        )
    return None


def _is_log_softmax(values_BN: Tensor) -> bool:
    return bool((values_BN.logsumexp(1).abs() <= SUM_TOLERANCE).all())


Rule = Callable[[Observed], Reason | None]
_NO_LOGITS: tuple[Rule, ...] = (made_of_probabilities, logarithms_of_probabilities, negative_log_probabilities)
_DOUBTFUL: tuple[Rule, ...] = (
    made_of_large_probabilities, equal_sums, several_softmaxes, equal_differences, never_negative, saturating,
    unscaled_cosines,
)  # fmt: skip
RULES: dict[str, tuple[Rule, ...]] = {
    "auto": (*_NO_LOGITS, *_DOUBTFUL),
    "softmax": (*_NO_LOGITS, equal_differences),
    "sigmoid": (*_NO_LOGITS, log_softmax),
    "binary": _NO_LOGITS,
    "probabilities": (),
    "raw": (),
}
"""The rules for every kind of outputs that a user may state."""


def no_logits(kind: str, seen: Observed) -> Reason | None:
    """Return the first reason why outputs cannot be of a kind, or may not be where the kind is "auto"."""
    with torch.no_grad():
        return next((reason for rule in RULES[kind] if (reason := rule(seen)) is not None), None)
