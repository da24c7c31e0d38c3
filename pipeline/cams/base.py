"""Interface of CAM methods: their definition, requirements and cost."""

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import ConfigDict
from torch import Tensor

from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.settings.registry import Named

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
"""Pydantic settings of all methods and metrics: hyper-parameters are validated, and unknown ones are refused."""


@dataclass(frozen=True)
class Needs:
    """Requirements of a method on the shared evidence and on the model.

    Attributes:
        gradients: gradients of the target logit with respect to the captured layers.
        stages: the last layer of each resolution, instead of the target layer alone.
        linear_head: a head made of global average pooling and one linear layer.
        activations: activations of the captured layers; False for methods that use the whole model and no layer.
        confidences: confidences of the target class, which raw outputs do not have.
        one_true_class: outputs of which exactly one class is true, since it computes a softmax over the classes.
        attention: attention between the tokens of the image, and the weights of every layer.
        attention_gradients: gradients of the target logit with respect to these weights.
        readouts: gradients of the scores that are read from the tokens of each layer.
    """

    gradients: bool = False
    stages: bool = False
    linear_head: bool = False
    activations: bool = True
    confidences: bool = False
    one_true_class: bool = False
    attention: bool = False
    attention_gradients: bool = False
    readouts: bool = False

    @property
    def in_float32(self) -> bool:
        """Whether the shared pass runs in float32 at every precision: gradients through many layers need it."""
        return self.stages or self.attention_gradients or self.readouts


@dataclass(frozen=True)
class Cost:
    """Passes per image, in addition to the shared clean forward pass and, where needed, head backward pass."""

    forwards: int = 0
    head_passes: int = 0
    backwards: int = 0


class LayerShape(NamedTuple):
    """Shape of a layer's output for one image."""

    channels: int
    height: int
    width: int


class NetShape(NamedTuple):
    """Properties of a network that determine the cost of a method.

    Attributes:
        stages: shapes of the stages, shallow to deep; the last one is the target layer.
        linear_head: whether the head is global average pooling and one linear layer.
        attention_layers: number of layers with attention, if a method asked for it.
        size: (height, width) of the images in pixels.
    """

    stages: tuple[LayerShape, ...]
    linear_head: bool
    size: tuple[int, int] = (224, 224)
    attention_layers: int = 0

    @property
    def target(self) -> LayerShape:
        """Return the shape of the target layer."""
        return self.stages[-1]


@dataclass(frozen=True)
class Paper:
    """Publication that a method or metric comes from."""

    authors: str
    title: str
    venue: str
    year: int
    link: str


class CamMethod(Protocol):
    """Interface of a CAM method: a frozen dataclass whose fields are hyper-parameters, part of the run's identity.

    The class docstring is the method's page for users: formula, symbols, shapes and edge cases. A method only computes
    maps; hooks, devices, batching, normalisation and storage are implemented once, elsewhere.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper]
    interpretation: ClassVar[bool]
    """True if the paper leaves the formula open; the page then says what was chosen."""
    presets: ClassVar[dict[str, dict[str, Any]]]
    """Named settings, for example those of another implementation."""

    @property
    def needs(self) -> Needs:
        """Return what the method requires when it is called."""
        ...

    def __call__(self, evidence: Evidence, probe: Probe) -> Tensor:
        """Compute the maps (B, u, v) at grid resolution: not normalised, and signed where the paper's maps are."""
        ...

    def cost(self, net: NetShape) -> Cost:
        """Count the passes per image on a network of this shape."""
        ...


class Adapter(Named):
    """A method of others: computed by another library, or stored.

    It can find out before the work that it does not suit the model or the images, and which single rows fail.
    """

    redraws: ClassVar[bool] = True
    """Whether it can draw the maps of changed images."""

    def opened(self) -> None:
        """Check what the method reads or imports before the work; raises ConfigError."""

    def notes(self) -> Sequence[str]:
        """Return what the user should know, one sentence each."""
        return ()

    @abstractmethod
    def problem(self, evidence: Evidence, probe: Probe) -> str:
        """Say why the method does not suit the model, its layer or a trial image; "" if nothing speaks against it."""

    def groups(self, evidence: Evidence) -> Sequence[Hashable]:
        """Return the group of each row: rows of different groups have maps of different shapes."""
        return [None] * len(evidence.keys)

    def failure(self, key: str, target: int) -> str:  # noqa: ARG002 - for methods whose rows can fail
        """Say why an image and class have no finite map; "" if only the map itself says it."""
        return ""


class Draws:
    """A method or metric whose rows depend on random numbers, as its identity records."""

    @property
    def draws(self) -> bool:
        """Whether it draws numbers with its parameters."""
        return True


class NoExtraPass:
    """Defaults of a method: the paper gives the formula, there are no presets, and the shared passes suffice."""

    interpretation: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def cost(self, net: NetShape) -> Cost:  # noqa: ARG002 - the same for every shape
        """Return a cost of zero: the shared passes suffice."""
        return Cost()


def weighted_sum(weights_BK: Tensor, acts_BKuv: Tensor) -> Tensor:
    """Compute the rectified weighted sum of activation maps, ReLU(sum_k w_k A_k), (B, u, v)."""
    return (weights_BK[:, :, None, None] * acts_BKuv).sum(1).relu()
