"""What a task is: how the results of a model that is no classifier become outputs (B, N).

The model stays as it is, so that the names of its layers and the digest of its weights are its own.

Legend: B images, N classes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from pipeline.model.outputs import OutputKey, OutputKind


@dataclass(frozen=True)
class Task(ABC):
    """Turns what a model returned into outputs (B, N), one row per image.

    A task can be sent to other processes, compared and hashed. Methods and metrics never see it: they read the logits
    and the confidences that `Outputs` makes of its outputs.

    Attributes:
        name: what the run file calls it.
        kinds: the kinds of outputs that it can have.
        is_guessed: whether `auto` looks at the outputs of trial images first, as for classifiers.
        may_miss: whether the model may find nothing of a class, which then has no score to explain.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[OutputKind, ...]]
    is_guessed: ClassVar[bool] = False
    may_miss: ClassVar[bool] = False

    @property
    def default_kind(self) -> OutputKind:
        """What `model.outputs: auto` means, where it does not look at the outputs of trial images."""
        return self.kinds[0]

    @abstractmethod
    def outputs(self, returned: object, key: OutputKey | None) -> Tensor:
        """Return the outputs (B, N) from what the model returned, differentiable with respect to it.

        Args:
            returned: what the model returned.
            key: name or index of what is read, in a returned dict, dataclass, tuple or list; None finds it.

        Raises:
            ConfigError: the model did not return what this task reads.
        """

    def observed(self, returned: object, key: OutputKey | None) -> Tensor:
        """Return the numbers that tell which kind of outputs they are, (B, N, ...); the outputs, if not more."""
        return self.outputs(returned, key)

    def for_trials(self, model: nn.Module) -> nn.Module:
        """Return the model for passes on made images: the model itself, or a copy that withholds no result."""
        return model

    def layers_within(self) -> str:
        """Return the name of the module in which `layer: auto` looks for the target layer; "" for the whole model.

        Raises:
            LayerError: it is not known which layers all results depend on.
        """
        return ""

    def identity(self) -> dict[str, Any]:
        """Return what the run's identity must know of the task."""
        return {"task": self.name}
