"""What a CAM method is, what it needs and what it costs."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import ConfigDict
from torch import Tensor

from pipeline.model.probe import Evidence, Probe

STRICT = ConfigDict(extra="forbid")
"""Hyper-parameters are validated wherever a method is made; unknown ones are refused."""


@dataclass(frozen=True)
class Needs:
    """What the shared evidence must hold for a method."""

    gradients: bool


@dataclass(frozen=True)
class Cost:
    """Passes per image beside the shared clean forward (and the shared head backward, where needed)."""

    forwards: int = 0
    head_passes: int = 0
    backwards: int = 0


class LayerShape(NamedTuple):
    """Size of a target layer's output for one image."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Paper:
    """Where a method or metric was published."""

    authors: str
    title: str
    venue: str
    year: int
    link: str


class CamMethod(Protocol):
    """A frozen dataclass whose fields are the hyper-parameters; they are part of the run's identity.

    The class docstring is the method's page: formula, symbols, shapes, what it does at the edges. Hooks,
    devices, batching, normalising and storing live elsewhere, once each.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper]
    needs: ClassVar[Needs]
    interpretation: ClassVar[bool]
    """True when the paper leaves the formula open and the page says what was chosen."""
    presets: ClassVar[dict[str, dict[str, Any]]]
    """Named settings, for example those of another implementation."""

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v) at grid resolution: raw, signed where the paper is, not normalised."""
        ...

    def cost(self, shape: LayerShape) -> Cost:
        """Count the passes per image for a target layer of this shape."""
        ...


def weighted_sum(weights_BK: Tensor, acts_BKuv: Tensor) -> Tensor:
    """Rectified weighted sum of activation maps: ReLU(sum_k w_k A_k), (B, u, v)."""
    return (weights_BK[:, :, None, None] * acts_BKuv).sum(1).relu()
