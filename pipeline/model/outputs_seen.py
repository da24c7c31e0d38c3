"""Observes what a model returns for a few images, and which functions made the numbers.

Legend: B images, N outputs.
"""

from collections.abc import Set
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pipeline.errors import ConfigError
from pipeline.model.output_graph import LINEAR, behind_views, name_of, sources_of
from pipeline.model.outputs import OutputKey, by_class, how_picked, picked
from pipeline.model.recording import evaluating
from pipeline.model.tasks.base import Task

SUM_TOLERANCE = 1e-4
"""How far a row of probabilities may be from the sum 1."""
SOFTMAX = frozenset({"Softmax", "SafeSoftmax"})
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Observed:
    """What a model returned for the trial images.

    Attributes:
        values_BN: the outputs, one row per image.
        end: name of the autograd function that made the outputs, looking through reshapes; "" if there is none.
        sources: names of the functions whose results the outputs are, but for shifts, scales, means, choices and joins.
        passed: names of the functions between those and the outputs.
        last_module: name and class of the last module that ran and has no children.
        picked: which part of the returned value is read, where the user has not said it.
        is_headless: whether the model seems to be a feature extractor: the last module with parameters is a
            normalisation of N channels, or the model states no classes, as those of timm do.
    """

    values_BN: Tensor
    end: str
    sources: frozenset[str]
    passed: frozenset[str]
    last_module: str
    picked: str
    is_headless: bool

    @property
    def is_linear(self) -> bool:
        """Whether a linear layer made the outputs."""
        return self.end in LINEAR

    def only_from(self, names: Set[str]) -> bool:
        """Tell whether the outputs are results of nothing but these functions."""
        return bool(self.sources) and self.sources <= names


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
        name_of(behind_views(made)),
        *sources_of(made),
        last,
        "" if key is not None else how_picked(returned, outputs),
        vars(model).get("num_classes") == 0 or _ends_in_norm(parametric, values_BN.shape[1]),
    )


def _rows(outputs: Tensor) -> Tensor:
    """Return outputs (B, N, ...), of pixels for example, as rows of N numbers."""
    outputs = outputs.detach().float()
    return outputs.movedim(1, -1).flatten(0, -2) if outputs.ndim > 1 else outputs[:, None]


def _ends_in_norm(parametric: list[nn.Module], width: int) -> bool:
    """Tell whether a normalisation of `width` channels is the last module with parameters, after no classifier."""
    if not parametric or not isinstance(parametric[-1], _NORMS):
        return False
    norm, before = parametric[-1], parametric[-2] if len(parametric) > 1 else None
    channels = norm.weight.numel() if isinstance(norm.weight, Tensor) else 0
    return channels == width and not _is_classifier(before, width)


def _is_classifier(module: nn.Module | None, width: int) -> bool:
    """Tell whether a module makes numbers of classes: a linear layer, or a convolution 1 x 1 to fewer channels.

    A projection to more channels, as at the end of many feature extractors, does not.
    """
    if isinstance(module, nn.Conv2d):
        return width == module.out_channels < module.in_channels and module.kernel_size == (1, 1)
    return isinstance(module, nn.Linear) and module.out_features == width
