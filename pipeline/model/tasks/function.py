"""A task by a function of the user's: `model.task: package.module:function`.

Legend: B images, N classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.outputs import OUTPUT_KINDS, OutputKey, described
from pipeline.model.tasks.base import Task

Reduction = Callable[[Any], Any]
"""Receives what the model returned, and returns outputs (B, N), differentiable, one row per image."""


@dataclass(frozen=True)
class FunctionTask(Task):
    """The outputs are what a function makes of what the model returned.

    Attributes:
        function: the function.
        label: its name in messages and in the run's identity.
        digest: sha256 of the file that defines it; "" where no run records it.
    """

    function: Reduction = field(repr=False)
    label: str
    digest: str = ""

    name = "function"
    kinds = OUTPUT_KINDS
    is_guessed = True

    def outputs(self, returned: object, key: OutputKey | None) -> Tensor:  # noqa: ARG002 - refused before
        """Return what the function makes of the returned value, (B, N).

        Raises:
            ConfigError: that is not (B, N) or (B,).
        """
        made = self.function(returned)
        if isinstance(made, Tensor) and made.is_floating_point() and made.ndim in (1, 2):
            return made
        raise ConfigError.one(
            "model.task",
            f"'{self.label}' must return a float tensor (B, N), one row per image, but it returns {described(made)}",
            "reduce what the model returns to one number per class",
        )

    def identity(self) -> dict[str, Any]:
        """Return the function's name and the digest of its source."""
        return {"task": self.label, "task_source": self.digest}
