"""Reads logits and confidences from whatever a model returns; the only place that knows how outputs become confidences.

| kind | logits z | confidence of class c |
|---|---|---|
| softmax | as returned, N >= 2 | softmax(z)_c |
| sigmoid | as returned, N >= 1, labels are independent | sigmoid(z_c) |
| binary | one output z becomes [0, z] | [1 - sigmoid(z), sigmoid(z)] |
| probabilities | log p of what is returned, p >= 1e-12; one output p becomes [1 - p, p] | p_c |
| raw | as returned, N >= 1 | none: NaN |

What a segmentation, a detector or an image encoder returns is made (B, N) by a task first (`pipeline.model.tasks`).

Legend: B images, R rows (image, target), N classes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.model.tasks.base import Task

_WHERE = "model.outputs"
OutputKind = Literal["softmax", "sigmoid", "binary", "probabilities", "raw"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)
OutputKey = str | int
NAMED_OUTPUTS = ("logits", "out", "output")
"""Names under which models return their logits in a dict or dataclass."""
_LEAST_PROBABILITY = 1e-12
_ROUNDING = 1e-4
"""How far a logit may be from that of the least probability and mean the same."""


@dataclass(frozen=True)
class Outputs:
    """How a model's return value becomes logits (B, N) and confidences (B, N).

    Attributes:
        kind: which activation belongs to the logits; see the table of this module.
        key: name or index of the tensor of logits in a returned dict, dataclass, tuple or list; None finds it.
        are_independent: whether probabilities belong to independent labels, so that they do not sum to 1.
        task: makes outputs (B, N) of what a model returns that is no classifier; None for classifiers.
    """

    kind: OutputKind = "softmax"
    key: OutputKey | None = None
    are_independent: bool = False
    task: "Task | None" = None

    @property
    def has_confidences(self) -> bool:
        """Whether the outputs say how confident the model is; False for raw outputs such as regressions."""
        return self.kind != "raw"

    def identity(self) -> dict[str, Any]:
        """Return what the run id must know of the outputs; nothing for the softmax that older runs imply."""
        known = {"outputs": self.kind, "output_key": self.key, "independent": self.are_independent or None}
        own = {} if self.task is None else self.task.identity()
        return {name: value for name, value in known.items() if value not in ("softmax", None)} | own

    def logits(self, returned: object) -> Tensor:
        """Return the logits (B, N), float32, from what the model returned.

        Raises:
            ConfigError: the tensor of logits cannot be found, or does not have the shape that the kind needs.
        """
        outputs_BN = self.by_class(returned).float()
        if self.kind == "binary":
            return torch.cat([torch.zeros_like(outputs_BN), _single(outputs_BN)], 1)
        if self.kind == "probabilities":
            pairs_BN = torch.cat([1 - outputs_BN, outputs_BN], 1) if outputs_BN.shape[1] == 1 else outputs_BN
            return pairs_BN.clamp_min(_LEAST_PROBABILITY).log()
        return outputs_BN

    def by_class(self, returned: object) -> Tensor:
        """Return one row of numbers per image, (B, N), from what the model returned, before the kind is applied."""
        return by_class(picked(returned, self.key) if self.task is None else self.task.outputs(returned, self.key))

    def confidences(self, logits_BN: Tensor) -> Tensor:
        """Return the confidence of every class, (B, N) in [0, 1]; NaN for raw outputs."""
        if self.kind == "sigmoid":
            return logits_BN.sigmoid()
        if self.kind == "probabilities":
            return logits_BN.exp()
        if self.kind == "raw":
            return torch.full_like(logits_BN, torch.nan)
        return logits_BN.softmax(1)

    def log_confidences(self, logits_BN: Tensor) -> Tensor:
        """Return the logarithm of the confidence of every class, (B, N), computed without loss of precision."""
        if self.kind == "sigmoid":
            return functional.logsigmoid(logits_BN)
        if self.kind == "probabilities":
            return logits_BN
        if self.kind == "raw":
            return torch.full_like(logits_BN, torch.nan)
        return logits_BN.log_softmax(1)

    def target_logits(self, logits_RN: Tensor, targets_R: Tensor) -> Tensor:
        """Return the logit of each row's target class, (R,): the score that most methods differentiate.

        The logit of a class of a binary model is its margin over the other class: z for class 1, and -z for class 0.
        """
        return self._target_logits(logits_RN, targets_R[:, None])[:, 0]

    def target_confidences(self, logits_RN: Tensor, targets_R: Tensor) -> Tensor:
        """Return the confidence of each row's target class, (R,)."""
        return self.confidences(logits_RN).gather(1, targets_R[:, None])[:, 0]

    def read(self, logits_PN: Tensor, targets_PT: Tensor) -> Tensor:
        """Return the logits and confidences of several target classes per image, (2, P, T)."""
        return torch.stack(
            [self._target_logits(logits_PN, targets_PT), self.confidences(logits_PN).gather(1, targets_PT)]
        )

    def _target_logits(self, logits_PN: Tensor, targets_PT: Tensor) -> Tensor:
        if self.kind == "binary":
            return logits_PN[:, 1:] * (2 * targets_PT - 1)
        return logits_PN.gather(1, targets_PT)

    def predictions(self, logits_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Return the confidence and the index of each image's most likely class, (B,) each."""
        if self.kind == "softmax":
            confidence_B, predicted_B = self.confidences(logits_BN).max(1)
            return confidence_B, predicted_B
        predicted_B = self.predicted(logits_BN)
        return self.target_confidences(logits_BN, predicted_B), predicted_B

    def predicted(self, logits_BN: Tensor) -> Tensor:
        """Return the class with the largest logit of each image, (B,)."""
        return logits_BN.argmax(1)

    def missed(self, logits_BN: Tensor) -> Tensor:
        """Return which classes the model did not find at all, (B, N) bool; only detectors can miss any."""
        if self.task is None or not self.task.may_miss:
            return torch.zeros_like(logits_BN, dtype=torch.bool)
        return logits_BN <= (0.0 if self.kind == "raw" else math.log(_LEAST_PROBABILITY) + _ROUNDING)

    def for_trials(self) -> "Outputs":
        """Return how outputs are read in trials: scores of a detector as they are, as a logarithm hides those of 0."""
        return replace(self, kind="raw") if self.task is not None and self.task.may_miss else self

    def connected(self, logits_BN: Tensor, tensors: Iterable[Tensor]) -> Tensor:
        """Return logits whose gradient with respect to tensors is zero, not undefined, where the model found nothing.

        Args:
            logits_BN: the logits of a differentiable pass.
            tensors: what they are to be differentiated with respect to.
        """
        if self.task is None or not self.task.may_miss:
            return logits_BN
        return logits_BN + torch.stack([tensor.flatten()[:0].sum().float() for tensor in tensors]).sum()


SOFTMAX = Outputs()
"""Logits of classes of which exactly one is true: what nearly all classifiers return."""


def picked(returned: object, key: OutputKey | None) -> Any:  # noqa: ANN401 - anything under a user's key
    """Find the tensor of logits in what a model returned.

    Raises:
        ConfigError: nothing has that key, or without a key more than one thing could be meant.
    """
    if key is not None:
        return _under_key(returned, key)
    if isinstance(returned, Tensor):
        return returned
    found = named_parts(returned)
    named = [name for name in NAMED_OUTPUTS if isinstance(found.get(name), Tensor)]
    if len(named) == 1:
        return found[named[0]]
    tensors = {name: part for name, part in found.items() if isinstance(part, Tensor)}
    first = next(iter(found.values()), None)
    others = list(tensors.values())[1:]
    in_order = isinstance(returned, (tuple, list)) and not named
    if in_order and isinstance(first, Tensor) and first.ndim == 2 and all(_is_no_row(part, first) for part in others):
        return first
    if in_order and len(tensors) == 1:  # such as (loss, logits) without a loss
        return next(iter(tensors.values()))
    raise ConfigError.one(
        "model.output_key",
        f"the model returns {described(returned)}, in which the logits are ambiguous",
        f"set it to one of {', '.join(map(repr, tensors))}"
        if tensors
        else "wrap the model so that it returns a tensor",
    )


def _is_no_row(part: Tensor, first: Tensor) -> bool:
    """Tell whether a part is not one row of numbers for each image, as logits and embeddings are."""
    return part.ndim != 2 or len(part) != len(first)


def how_picked(returned: object, outputs: object) -> str:
    """Say which part of what a model returned was taken for the logits; "" if it returned nothing else."""
    names = [name for name, part in named_parts(returned).items() if part is outputs]
    if not names:
        return ""
    return f"the model returns {described(returned)}; {names[0]!r} is read as its outputs (model.output_key)"


def by_class(outputs: Any) -> Tensor:  # noqa: ANN401 - whatever a model returned
    """Check that outputs are one row of numbers per image, (B, N); one number per image (B,) becomes (B, 1)."""
    if isinstance(outputs, Tensor) and outputs.ndim == 1:
        return outputs[:, None]
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or not outputs.shape[1]:
        raise ConfigError.one(
            _WHERE,
            f"the model must return logits (B, N), one row per image, but it returns {described(outputs)}",
            "set model.output_key, or wrap the model in a module that returns them",
        )
    return outputs


def _single(outputs_B1: Tensor) -> Tensor:
    if outputs_B1.shape[1] != 1:
        raise ConfigError.one(
            _WHERE,
            f"binary needs one output per image, but the model returns {outputs_B1.shape[1]}",
            "softmax where exactly one class is true, sigmoid for independent labels",
        )
    return outputs_B1


def _under_key(returned: object, key: OutputKey) -> object:
    found = named_parts(returned)
    if key not in found:
        known = f"one of {', '.join(map(repr, found))}" if found else "leave it out: the model returns one tensor"
        raise ConfigError.one("model.output_key", f"the model returns {described(returned)}, without {key!r}", known)
    return found[key]


def named_parts(returned: object) -> dict[OutputKey, object]:
    """Return the parts of a dict, dataclass, named tuple, tuple or list by name or index."""
    if isinstance(returned, Mapping):
        return dict(returned)
    if isinstance(returned, tuple) and hasattr(returned, "_fields"):  # a named tuple has names and indices
        return {**dict(zip(returned._fields, returned, strict=True)), **dict(enumerate(returned))}
    if isinstance(returned, (tuple, list)):
        return dict(enumerate(returned))
    return {} if isinstance(returned, Tensor) else dict(getattr(returned, "__dict__", {}))


def described(returned: object) -> str:
    """Describe what a model returned: its type, and the shapes of its parts."""
    if isinstance(returned, Tensor):
        return f"a tensor {tuple(returned.shape)}"
    parts = ", ".join(
        f"{name}: {tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}"
        for name, part in named_parts(returned).items()
    )
    return f"{type(returned).__name__} ({parts})" if parts else type(returned).__name__
