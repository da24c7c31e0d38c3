"""Notices when a plug-in changes the model that it explains, and restores the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.model.probe import Probe

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ModelChangedError(Exception):
    """A plug-in changed the model; it was restored."""


@dataclass(frozen=True)
class _State:
    """A copy of everything of a model that its forward pass depends on."""

    tensors: dict[str, Tensor]
    differentiable: dict[str, bool]
    training: dict[str, bool]
    hooks: dict[tuple[str, str], list[Any]]

    @classmethod
    def of(cls, model: nn.Module) -> "_State":
        return cls(
            {name: tensor.detach().clone() for name, tensor in _tensors(model).items()},
            {name: parameter.requires_grad for name, parameter in model.named_parameters()},
            {name: module.training for name, module in model.named_modules()},
            {(name, kind): list(vars(module)[kind]) for name, module in model.named_modules() for kind in _HOOKS},
        )

    def changed(self, model: nn.Module) -> str:
        """Say what differs now; empty if nothing does."""
        now = _tensors(model)
        if now.keys() != self.tensors.keys():
            return "its parameters"
        for name, kept in self.tensors.items():
            if now[name].shape != kept.shape or not _equal(now[name], kept):
                return f"'{name}'"
        if {name: module.training for name, module in model.named_modules()} != self.training:
            return "whether it is in training"
        if {name: each.requires_grad for name, each in model.named_parameters()} != self.differentiable:
            return "whether its parameters are differentiated"
        hooks = {(name, kind): list(vars(module)[kind]) for name, module in model.named_modules() for kind in _HOOKS}
        return "" if hooks == self.hooks else "its hooks"

    def restore(self, model: nn.Module) -> None:
        """Undo every change but that of the modules themselves."""
        with torch.no_grad():
            for name, tensor in _tensors(model).items():
                if name in self.tensors and tensor.shape == self.tensors[name].shape:
                    tensor.copy_(self.tensors[name])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.differentiable.get(name, True))
        for name, module in model.named_modules():
            module.training = self.training.get(name, False)
            for kind in _HOOKS:
                known = self.hooks.get((name, kind), [])
                for handle in [handle for handle in vars(module)[kind] if handle not in known]:
                    del vars(module)[kind][handle]


_KEPT: WeakKeyDictionary[nn.Module, _State] = WeakKeyDictionary()


@contextmanager
def guarded(probe: Probe, who: str) -> Iterator[None]:
    """Let a plug-in use the model, and check afterwards that the model is as it was.

    Raises:
        ModelChangedError: it was changed; it is restored first.
    """
    model = probe.model
    kept = _KEPT.get(model)
    if kept is None or kept.changed(model):  # the caller may have changed the model since
        kept = _KEPT[model] = _State.of(model)
    try:
        yield
    finally:
        changed = kept.changed(model)
        if changed:
            kept.restore(model)
            probe.renew()
    if changed:
        raise ModelChangedError(f"{who} changed the model: {changed}")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
