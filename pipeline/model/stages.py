"""Finds the stages that lead to a target layer: the last layer of each resolution.

Legend: (u, v) grid, (H, W) pixels.
"""

from collections.abc import Iterable, Iterator

from torch import nn

from pipeline.model.layer_names import LayerName
from pipeline.model.layout import View
from pipeline.model.layout_trial import Trial
from pipeline.model.trace import Calls

_COARSER = 1.5
"""A grid starts a new stage if it has more than this many times the cells of the next coarser stage."""
_FINEST_STRIDE = 4
"""Stages finer than a quarter of the image's sides show mostly edges, and need the most memory."""


def find_stages(trial: Trial, layer: str, view: View, calls: Calls) -> tuple[str, ...]:
    """Return the last layer of each resolution up to the target layer, shallow to deep, including the target layer.

    Candidates are the siblings of the target layer and of the modules that contain it, with the children of sequences
    and lists of modules; layers inside of other blocks are not. Where these have one resolution only, as in a model
    that wraps a network, the candidates are those inside of the target layer.

    Args:
        trial: the model and the size of its images.
        layer: name of the target layer.
        view: layout of the target layer.
        calls: the calls of a forward pass.
    """
    name = LayerName.parse(layer)
    reached = _reached(name, calls)
    if reached is None:
        return (layer,)
    finest = trial.size[0] * trial.size[1] // _FINEST_STRIDE**2

    def among(candidates: Iterable[str]) -> tuple[str, ...]:
        names = {candidate for candidate in candidates if candidate != layer}
        earlier = [call for call in calls.values() if call.name in names and call.ended < reached]
        grids = [(call.name, grid.cells) for call in earlier if (grid := call.view(trial.size)) is not None]
        return (*_last_of_each_size(grids, view.cells, finest), layer)

    stages = among(_beside(trial.model, name.module))
    wrapper: str | None = None if name.is_input else name.module
    while len(stages) == 1 and wrapper is not None and _takes_images(wrapper, calls, trial):
        inside = _inside(trial.model, wrapper)
        stages = among(inside)
        wrapper = next((child for child in inside if _takes_images(child, calls, trial)), None)
    return stages


def _reached(layer: LayerName, calls: Calls) -> int | None:
    """Return when a pass reaches a layer; None if it does not."""
    call = calls.get(str(LayerName(layer.module, layer.call))) or calls.get(layer.module)
    if call is None:
        return None
    return call.begun if layer.is_input else call.ended


def _takes_images(module: str, calls: Calls, trial: Trial) -> bool:
    """Tell whether the image itself goes into a module, as into a network that another module wraps."""
    call = calls.get(module)
    return call is not None and call.taken is not None and call.taken[2:] == trial.size


def _last_of_each_size(grids: list[tuple[str, int]], coarsest: int, finest: int) -> list[str]:
    """Return the last layer of each number of cells from `finest` to `coarsest`, shallow to deep."""
    kept, coarser = list[str](), coarsest
    for name, cells in reversed(grids):
        if _COARSER * coarser < cells <= finest:
            kept.append(name)
            coarser = cells
    return kept[::-1]


def _beside(model: nn.Module, layer: str) -> Iterator[str]:
    """Yield the siblings of the target layer and of the modules that contain it, with children of sequences."""
    parts = layer.split(".")
    for depth in range(len(parts)):
        parent = ".".join(parts[:depth])
        for child, module in model.get_submodule(parent).named_children():
            name = f"{parent}.{child}" if parent else child
            if name == layer or not f"{layer}.".startswith(f"{name}."):
                yield from _with_children(name, module)
            if name == layer:
                return


def _inside(model: nn.Module, layer: str) -> list[str]:
    """List the children of a module, with the children of sequences among them."""
    children = model.get_submodule(layer).named_children()
    return [name for child, module in children for name in _with_children(f"{layer}.{child}", module)]


def _with_children(name: str, module: nn.Module) -> Iterator[str]:
    """Yield a module, and the children of a sequence or, at any depth, of lists of modules."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):  # these do not run themselves
        for child, inner in module.named_children():
            yield from _with_children(f"{name}.{child}", inner)
        return
    yield name
    if isinstance(module, nn.Sequential):
        yield from (f"{name}.{child}" for child, _ in module.named_children())
