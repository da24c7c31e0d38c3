"""Tasks: what makes outputs (B, N) of the results of segmentations, detectors and image encoders."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.errors import ConfigError, nearest
from pipeline.model.tasks.base import Task
from pipeline.model.tasks.detection import Detection
from pipeline.model.tasks.embeddings import Similarity, ZeroShot
from pipeline.model.tasks.function import FunctionTask
from pipeline.model.tasks.segmentation import Segmentation
from pipeline.model.tasks.stated import StatedTask, stated_task
from pipeline.settings.functions import imported

__all__ = [
    "Detection",
    "FunctionTask",
    "Segmentation",
    "Similarity",
    "StatedTask",
    "Task",
    "ZeroShot",
    "stated_task",
    "task_of",
]

Tasks = str | Task | Callable[[Any], Any]
"""What users write in Python: "segmentation", "detection", `package.module:function`, a function, or a task."""


def task_of(given: Tasks | None, model: nn.Module) -> Task | None:
    """Return the task that a user wrote in Python, for a model; None for a classifier.

    Raises:
        ConfigError: there is no such task, or the model does not say how many classes it has.
    """
    if given is None or isinstance(given, Task):
        return given
    if given == "segmentation":
        return Segmentation()
    if given == "detection":
        return Detection.of(model)
    if callable(given):
        return FunctionTask(given, getattr(given, "__qualname__", type(given).__name__))
    if isinstance(given, str) and ":" in given:
        return FunctionTask(imported("task", given), given)
    hint = "give camatlas.Similarity(names, vectors)" if given == "similarity" else ""
    raise ConfigError.one(
        "task", f"{given!r} is not a task", hint or nearest(str(given), ("segmentation", "detection"))
    )
