"""Guards a model while code of the user's runs: finds out what that code changed, and changes it back.

A plug-in may run the model, and must leave it as it was: parameters, buffers, modules, hooks, the training mode, and
which parameters require gradients. A copy of all of it is kept, which takes as much memory as the model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.errors import first_line
from pipeline.model.batching import is_out_of_memory
from pipeline.model.device_failure import is_device_failure
from pipeline.model.probe import Probe
from pipeline.settings.functions import place_of

Result = TypeVar("Result")
_REGISTRIES = tuple(name for name, value in vars(nn.Module()).items() if isinstance(value, dict))
"""Names of the dicts in which a module keeps its parameters, buffers, modules and hooks."""
_CONTENTS = {"_parameters": "parameters", "_buffers": "buffers", "_modules": "modules"}
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_OF_PASSES = ("_cut", "_baseline_acts")
"""What the probe's own passes may change."""


class _Module:
    """What one module held when it was looked at, apart from the values of its tensors."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self._module = name or "the model", module
        self._held = {registry: dict(vars(module)[registry]) for registry in _REGISTRIES if registry in vars(module)}
        self._training, self._forward = module.training, vars(module).get("forward")

    def restored(self) -> Iterator[str]:
        """Put back what is different now, and yield what it was."""
        for registry, held in self._held.items():
            now = vars(self._module)[registry]
            if now.keys() != held.keys() or any(now[key] is not value for key, value in held.items()):
                now.clear()
                now.update(held)
                yield f"the {_CONTENTS.get(registry, 'hooks')} of {self.name}"
        if self._module.training != self._training:
            self._module.training = self._training
            yield f"the training mode of {self.name}"
        if vars(self._module).get("forward") is not self._forward:
            vars(self._module).pop("forward", None)
            if self._forward is not None:
                vars(self._module)["forward"] = self._forward
            yield f"the forward function of {self.name}"


class _Tensor:
    """A parameter or buffer with a copy of its values."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name, self._tensor = name, tensor
        self._data, self._copy = tensor.data, tensor.detach().clone()
        self._requires_grad, self.mark = tensor.requires_grad, self._mark()

    def is_touched(self) -> bool:
        """Tell whether the tensor was written to or replaced since, in a way that PyTorch counts."""
        return self.mark != self._mark()

    def restored(self) -> Iterator[str]:
        """Put back what is different now, and yield what it was."""
        if self._tensor.requires_grad != self._requires_grad:
            self._tensor.requires_grad_(self._requires_grad)
            yield f"requires_grad of {self.name}"
        if self._tensor.data_ptr() != self._data.data_ptr() or not _same_bits(self._tensor.data, self._copy):
            self._data.copy_(self._copy)
            self._tensor.data = self._data
            yield f"the values of {self.name}"
        self.mark = self._mark()

    def _mark(self) -> tuple[object, ...]:
        tensor = self._tensor
        version = 0 if tensor.is_inference() else tensor._version
        return version, tensor.data_ptr(), tensor.device, tensor.dtype, tuple(tensor.shape)


class Guard:
    """Keeps the state of a probe and its model.

    Args:
        probe: the probe; its own passes may run between guarded calls, and may write to buffers.
    """

    def __init__(self, probe: Probe) -> None:
        self._model, self._probe = probe.model, vars(probe)
        self._is_guarding = False
        parameters, buffers = probe.model.named_parameters(), probe.model.named_buffers()
        self._parameters = [_Tensor(name, tensor) for name, tensor in parameters]
        self._buffers = [_Tensor(name, tensor) for name, tensor in buffers]

    def call(self, work: Callable[[], Result]) -> tuple[Result | None, list[str]]:
        """Do some work of the user's; return its result, None if it raised, and what it did wrong.

        Each wrong is a phrase such as "raised KeyError: 'x' (mine.py:7)". Inside of guarded work, only exceptions are
        looked at.

        Raises:
            RuntimeError: memory ran out, or the device failed, which is not the user's mistake.
        """
        if self._is_guarding:
            return _attempt(work)
        self._settle()
        self._is_guarding, wrong = True, list[str]()
        try:
            with self._gradients_hidden(wrong), torch.set_grad_enabled(torch.is_grad_enabled()):
                result, raised = _attempt(work)
        finally:
            self._is_guarding = False
            wrong += self._restored()
        return result, raised + ([f"changed {_listed(wrong)}"] if wrong else [])

    def _settle(self) -> None:
        """Take the present state as the one to keep; buffers that passes write to are no longer looked at."""
        self._modules = [_Module(name, module) for name, module in self._model.named_modules()]
        self._fixed = {name: value for name, value in self._probe.items() if name not in _OF_PASSES}
        self._buffers = [buffer for buffer in self._buffers if not buffer.is_touched()]
        self._parameters = [_Tensor(one.name, one._tensor) if one.is_touched() else one for one in self._parameters]

    def _restored(self) -> list[str]:
        """Put everything back, and return what was different."""
        changed = [what for module in self._modules for what in module.restored()]
        changed += [what for tensor in (*self._parameters, *self._buffers) for what in tensor.restored()]
        for name, value in self._fixed.items():
            if self._probe.get(name) is not value:
                self._probe[name] = value
                changed.append(f"the probe's {name.lstrip('_')}")
        return changed

    @contextmanager
    def _gradients_hidden(self, wrong: list[str]) -> Iterator[None]:
        """Hide the gradients of parameters; note those that are left behind, and drop them."""
        parameters = dict(self._model.named_parameters())
        before = {name: parameter.grad for name, parameter in parameters.items()}
        for parameter in parameters.values():
            parameter.grad = None
        try:
            yield
        finally:
            left = [name for name, parameter in parameters.items() if parameter.grad is not None]
            wrong += [f"the gradient of {name} (torch.autograd.grad leaves none)" for name in left]
            for name, parameter in parameters.items():
                parameter.grad = before[name]


_GUARDS: WeakKeyDictionary[Probe, Guard] = WeakKeyDictionary()


def guard_of(probe: Probe) -> Guard:
    """Return the guard of a probe, which is made once."""
    if probe not in _GUARDS:
        _GUARDS[probe] = Guard(probe)
    return _GUARDS[probe]


def _attempt(work: Callable[[], Result]) -> tuple[Result | None, list[str]]:
    try:
        return work(), []
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        if is_out_of_memory(error) or is_device_failure(error):
            raise
        return None, [f"raised {first_line(error)}{place_of(error)}"]


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Compare tensors bit by bit, so that NaN equals itself."""
    if one.shape != other.shape or one.dtype != other.dtype or one.device != other.device:
        return False
    bits = _BITS.get(one.element_size())
    return (
        torch.equal(one, other) if bits is None or one.is_complex() else torch.equal(one.view(bits), other.view(bits))
    )


def _listed(things: list[str]) -> str:
    shown = ", ".join(things[:3])
    return shown + (f" and {len(things) - 3} more" if len(things) > 3 else "")
