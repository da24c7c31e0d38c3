"""What a CAM method is, what it needs and what it costs."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import ConfigDict
from torch import Tensor

from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
"""Hyper-parameters are validated wherever a method is made; unknown ones are refused."""


@dataclass(frozen=True)
class Needs:
    """What a method needs of the shared evidence and of the model.

    Attributes:
        gradients: of the target logit with respect to the captured layers.
        stages: the last layer of each resolution, not the target layer alone.
        linear_head: a head of global average pooling and one linear layer.
        activations: of the captured layers; methods without that look at the whole model alone.
    """

    gradients: bool = False
    stages: bool = False
    linear_head: bool = False
    activations: bool = True


@dataclass(frozen=True)
class Cost:
    """Passes per image beside the shared clean forward (and the shared head backward, where needed)."""

    forwards: int = 0
    head_passes: int = 0
    backwards: int = 0


class LayerShape(NamedTuple):
    """Size of a layer's output for one image."""

    channels: int
    height: int
    width: int


class NetShape(NamedTuple):
    """What the cost of a method depends on.

    Attributes:
        stages: shapes of the stages, shallow to deep; the last one is the target layer.
        linear_head: whether the head is global average pooling and one linear layer.
    """

    stages: tuple[LayerShape, ...]
    linear_head: bool

    @property
    def target(self) -> LayerShape:
        """Shape of the target layer."""
        return self.stages[-1]


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
    interpretation: ClassVar[bool]
    """True when the paper leaves the formula open and the page says what was chosen."""
    presets: ClassVar[dict[str, dict[str, Any]]]
    """Named settings, for example those of another implementation."""

    @property
    def needs(self) -> Needs:
        """What must be there before it is called."""
        ...

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v) at grid resolution: raw, signed where the paper is, not normalised."""
        ...

    def cost(self, net: NetShape) -> Cost:
        """Count the passes per image on a network of this shape."""
        ...


class NoExtraPass:
    """Defaults of a method: formula given by the paper, no presets, nothing to run beside the shared passes."""

    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Nothing beside the shared passes."""
        return Cost()


def weighted_sum(weights_BK: Tensor, acts_BKuv: Tensor) -> Tensor:
    """Rectified weighted sum of activation maps: ReLU(sum_k w_k A_k), (B, u, v)."""
    return (weights_BK[:, :, None, None] * acts_BKuv).sum(1).relu()
