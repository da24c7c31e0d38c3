"""Finds the layers that users name: by name, with a call or an input, by module, or inside of wrappers."""

from collections.abc import Callable, Sequence

from torch import nn

from pipeline.errors import LayerError, UnknownLayerError
from pipeline.model.layer_names import LayerName

_WRAPPERS = ("module.", "_orig_mod.")
"""Beginnings of names in a model that is wrapped for training or compiled; the bare network has names without them."""


def no_hint(_layer: str) -> str:
    """Suggest nothing, where no images are known on which layers can be tried."""
    return ""


def resolve_layer(model: nn.Module, layer: str | nn.Module, hint: Callable[[str], str] = no_hint) -> str:
    """Return the name of a layer of a model, with its call and side.

    Args:
        model: the classifier, without wrappers.
        layer: a name such as `layer4`, `relu#2` (the second call) or `bn1:input`, or a module of the model.
        hint: returns what to add to the message about an unknown name, such as names of layers that serve.

    Raises:
        UnknownLayerError: the model has no layer of that name.
        LayerError: the module is not part of the model, or it is neither a module nor a name.
    """
    if isinstance(layer, nn.Module):
        return _name_of(model, layer)
    if not isinstance(layer, str):
        raise LayerError(f"a layer must be a name or a module of the model, not {type(layer).__name__}")
    known = {name for name, _ in model.named_modules() if name}
    name = LayerName.parse(layer)
    inside = name.module
    while inside not in known and inside.startswith(_WRAPPERS):
        inside = inside.partition(".")[2]
    if inside not in known:
        suggestion = hint(layer)
        raise UnknownLayerError(f"the model has no layer '{layer}'{f' ({suggestion})' if suggestion else ''}")
    return str(name.of_module(inside))


def _name_of(model: nn.Module, layer: nn.Module) -> str:
    for name, module in model.named_modules():
        if module is layer and name:
            return str(name)
    raise LayerError("the given layer is not a module of the model")


def checked_stages(
    model: nn.Module, stages: Sequence[str], layer: str, hint: Callable[[str], str] = no_hint
) -> tuple[str, ...]:
    """Return the names of the requested stages; raise LayerError unless they differ and end with the target layer."""
    names = tuple(resolve_layer(model, stage, hint) for stage in stages)
    if len(set(names)) != len(names) or not names or names[-1] != layer:
        raise LayerError(
            f"stages must be different layers, shallow to deep, the last one being the target layer '{layer}'"
        )
    return names
