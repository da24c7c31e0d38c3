"""Private copies of a model, for methods that hook its modules: the model itself is left unchanged.

Hooks on modules go wrong in two places, and a copy repairs both without changing a logit:

* A module that runs several times, such as the one ReLU of a ResNet block, has one hook for all its calls. In a copy
  each call has a module of its own.
* Where one hooked module follows another, both hook the same tensor, and the first reads the gradient before the second
  has changed it. In a copy every basic module receives a clone of its input.
"""

import copy
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, first_line
from pipeline.model.operations import Operations, is_basic, operations
from pipeline.model.outputs import Outputs
from pipeline.model.recording import evaluating, for_evaluation
from pipeline.model.steadiness import structure

_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Operations]] = WeakKeyDictionary()
"""The operations of models, by structure, size of the images and outputs."""


class _OfEachCall(nn.Module):
    """Takes the place of a module without parameters that runs several times: each call has a module of its own."""

    def __init__(self, module: nn.Module, times: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(copy.deepcopy(module) for _ in range(times))
        self.number = 0

    def forward(self, values: Tensor) -> Tensor:
        """Run the module of this call."""
        self.number += 1
        outputs: Tensor = self.each[self.number - 1](values)
        return outputs


class PrivateModel(nn.Module):
    """A copy of a model that gives logits; its modules may be hooked, and each runs once in a forward pass.

    Args:
        model: the model.
        outputs: how what it returns becomes logits.
        calls: how often its modules run, from `operations_of`.
        sharing: as in `copied`.

    Attributes:
        model: the copy; its parameters require no gradients.
    """

    def __init__(self, model: nn.Module, outputs: Outputs, calls: Mapping[str, int], *, sharing: bool = True) -> None:
        super().__init__()
        self.model = copied(model, sharing=sharing)
        self._outputs = outputs
        self._of_each_call = _split(self.model, calls)
        for module in self.model.modules():
            if is_basic(module):
                module.register_forward_pre_hook(_clone_inputs)
        for_evaluation(self)

    def forward(self, pixels_PCHW: Tensor) -> Tensor:
        """Return the logits (P, N), float32, of normalised images."""
        for module in self._of_each_call:
            module.number = 0
        with torch.autocast(pixels_PCHW.device.type, enabled=False):
            return self._outputs.logits(self.model(pixels_PCHW.clone()))


def operations_of(model: nn.Module, outputs: Outputs, pixels_1CHW: Tensor) -> Operations:
    """List what a model computes from images of this size; it is run once for each structure and size."""
    known = _KNOWN.setdefault(model, {})
    question = (structure(model), tuple(pixels_1CHW.shape[1:]), outputs.kind, outputs.key, type(outputs.task))
    if question not in known:
        private = for_evaluation(copied(model))
        pixels_1CHW = pixels_1CHW.detach().clone().requires_grad_()
        with torch.inference_mode(False), torch.enable_grad(), evaluating(private):
            known[question] = operations(private, lambda: outputs.logits(private(pixels_1CHW.clone())))
    return known[question]


def copied(model: nn.Module, *, sharing: bool = True) -> nn.Module:
    """Return a deep copy of a model whose parameters require no gradients.

    Args:
        model: the model.
        sharing: whether the copy has the same numbers in memory; False if something may write to them.

    Raises:
        ConfigError: the model cannot be copied.
    """
    shared = {id(tensor): _shared(tensor) for tensor in (*model.parameters(), *model.buffers())} if sharing else {}
    try:
        with torch.inference_mode(False):
            return copy.deepcopy(model, shared).requires_grad_(False)
    except Exception as error:  # a module may hold objects that cannot be copied: locks, graphs, files
        raise ConfigError.one(
            "explain.methods",
            f"the model cannot be copied ({first_line(error)}), so that its modules cannot be hooked",
            "choose a method that needs no modules",
        ) from error


def _shared(tensor: Tensor) -> Tensor:
    """Return a tensor that shares its memory and requires no gradient."""
    return nn.Parameter(tensor.detach(), False) if isinstance(tensor, nn.Parameter) else tensor.detach()


def _split(model: nn.Module, calls: Mapping[str, int]) -> list[_OfEachCall]:
    """Give each call of a module without parameters a module of its own."""
    made: dict[int, _OfEachCall] = {}
    for name, times in calls.items():
        module = model.get_submodule(name)
        if times > 1 and not any(module.parameters()) and not any(module.buffers()):
            made[id(module)] = _OfEachCall(module, times)
    for parent in [*model.modules()]:
        for name, part in [*parent._modules.items()]:
            if id(part) in made:
                setattr(parent, name, made[id(part)])
    return [*made.values()]


def _clone_inputs(_module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)
