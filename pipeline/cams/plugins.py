"""Adapts methods of users to the interface of ours, and guards the model and the evidence against them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from pipeline.cams.base import CamMethod, Cost, Needs, NetShape, Paper
from pipeline.model.evidence import Evidence
from pipeline.model.guard import guarded
from pipeline.model.probe import Probe
from pipeline.settings.plugins import Plugin

_OWN = Paper("its author", "a plug-in", "not published", 0, "")


@runtime_checkable
class _Callable(Protocol):
    needs: Needs

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor: ...


@runtime_checkable
class _DeclaresCost(Protocol):
    def cost(self, net: NetShape) -> Cost: ...


class PluginError(Exception):
    """What a plug-in did wrong on some images."""


@dataclass(frozen=True)
class PluginMethod(Plugin):
    """A method of a user's.

    Attributes:
        inner, origin, digest: as in `Plugin`.
        measured: passes per image, measured before the run where the method declares none.
    """

    measured: Cost = field(default_factory=Cost)

    name: ClassVar[str] = "plug-in"
    paper: ClassVar[Paper] = _OWN
    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    @property
    def needs(self) -> Needs:
        """Return what the method requires when it is called."""
        needs: Needs = self.inner.needs
        return needs

    @property
    def declares_cost(self) -> bool:
        """Whether the method says how many passes it needs."""
        return isinstance(self.inner, _DeclaresCost)

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v) with copies of the evidence.

        Raises:
            PluginError: the method changed the model, which is restored, or returned something else than maps.
        """
        with guarded(probe, self.origin):
            maps = self.inner(_copied(evidence), probe)
        return _checked(maps, evidence, self.origin)

    def cost(self, net: NetShape) -> Cost:
        """Return the declared or measured passes per image."""
        if not self.declares_cost:
            return self.measured
        declared: Cost = self.inner.cost(net)
        return declared


def method_problem(given: object) -> tuple[str, str]:
    """Say why an object is not a method, and what to do; empty if it is one."""
    if not isinstance(given, _Callable):
        return (
            "is not a method: it needs `needs` and `__call__(evidence, probe)`",
            "inherit from camatlas.Method; docs/plug-ins.md has an example",
        )
    if not isinstance(given.needs, Needs):
        return f"has `needs` of type {type(given.needs).__name__}", "make it camatlas.Needs(...)"
    return "", ""


def adapted_method(given: object, origin: str, digest: str) -> CamMethod:
    """Return a user's method as one of ours."""
    return PluginMethod(given, origin, digest)


def _copied(evidence: Evidence) -> Evidence:
    """Return evidence whose tensors a plug-in may change."""
    return replace(
        evidence,
        pixels_BCHW=evidence.pixels_BCHW.clone(),
        acts=_each(evidence.acts, Tensor.clone),
        grads=_each(evidence.grads, Tensor.clone),
        logits_BN=evidence.logits_BN.clone(),
        targets_B=evidence.targets_B.clone(),
        images_B=evidence.images_B.clone(),
        raw=evidence.raw.clone(),
    )


def _each(tensors: Any, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:  # noqa: ANN401 - a mapping
    return {name: change(tensor) for name, tensor in tensors.items()}


def _checked(maps: object, evidence: Evidence, origin: str) -> Tensor:
    """Return maps (B, u, v), float32, or raise PluginError."""
    rows = len(evidence.keys)
    if not isinstance(maps, Tensor):
        raise PluginError(f"{origin} returned {type(maps).__name__}, not a tensor (B, u, v)")
    if maps.ndim != 3 or len(maps) != rows or not maps.numel() or not maps.is_floating_point():
        raise PluginError(
            f"{origin} returned {str(maps.dtype).removeprefix('torch.')} {tuple(maps.shape)}, not float maps "
            f"({rows}, u, v)"
        )
    return maps.detach().to(evidence.pixels_BCHW.device, torch.float32)
