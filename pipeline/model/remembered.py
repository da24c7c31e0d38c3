"""Remembers the layers of a model and their layouts, so that a notebook's next call needs no trial."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from pipeline.model.layout import GridView
from pipeline.model.layout_choice import FoundLayouts, Layout
from pipeline.model.probe import Probe
from pipeline.model.steadiness import structure
from pipeline.model.tasks.base import Task


@dataclass(frozen=True)
class Wanted:
    """What the user wrote about layers.

    Attributes:
        layer: the target layer, by name, as a module, or "auto".
        stages: the layers for methods that combine several; None finds them.
        layout: how the target layer's output is read.
        task: what makes logits of the model's results, on which the target layer for "auto" depends.
    """

    layer: str | nn.Module
    stages: Sequence[str] | None
    layout: Layout | FoundLayouts
    task: Task | None = None


_KNOWN: WeakKeyDictionary[nn.Module, dict[Hashable, Wanted]] = WeakKeyDictionary()


def recalled(model: nn.Module, wanted: Wanted, pixels_BCHW: Tensor) -> Wanted:
    """Return the layers that were found for the same model, wishes and size of images; the wishes if none were."""
    key = _key(model, wanted, pixels_BCHW)
    return wanted if key is None else _KNOWN.get(model, {}).get(key, wanted)


def remember(model: nn.Module, wanted: Wanted, probe: Probe, pixels_BCHW: Tensor) -> None:
    """Remember the layers that a probe has found for images of this size.

    Layouts by a function of the user's are not remembered: they may hold the model, which would never be freed.
    """
    key, found = _key(model, wanted, pixels_BCHW), probe.layouts(pixels_BCHW)
    if key is not None and all(isinstance(view, GridView) for view in found.by_layer.values()):
        _KNOWN.setdefault(model, {})[key] = Wanted(probe.layer, probe.known_stages, found)


def _key(model: nn.Module, wanted: Wanted, pixels_BCHW: Tensor) -> Hashable | None:
    """Return what a trial depends on; None where a function of the user's takes part, or for what will be refused."""
    if (
        not isinstance(wanted.layer, str | nn.Module)
        or callable(wanted.layout)
        or (isinstance(wanted.layout, str) and ":" in wanted.layout)
    ):
        return None
    stages = None if wanted.stages is None else tuple(map(str, wanted.stages))
    versions = tuple(parameter._version for parameter in model.parameters() if not parameter.is_inference())
    return (
        wanted.layer,
        stages,
        repr(wanted.layout),
        wanted.task,
        tuple(pixels_BCHW.shape[1:]),
        structure(model),
        versions,
    )
