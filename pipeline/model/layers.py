"""Finds the target layer by name, by module or by model family, and the stages that lead to it."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from torch import Tensor, nn

from pipeline.errors import LayerError, nearest

AUTO_LAYERS = {
    "ConvNeXt": ("features", "stages"),
    "DenseNet": ("features",),
    "EfficientNet": ("features", "bn2"),
    "GoogLeNet": ("inception5b",),
    "Inception3": ("Mixed_7c",),
    "InceptionV3": ("Mixed_7c",),
    "MNASNet": ("layers",),
    "MobileNetV2": ("features",),
    "MobileNetV3": ("features", "blocks"),
    "RegNet": ("trunk_output", "final_conv"),
    "ResNet": ("layer4",),
    "ShuffleNetV2": ("conv5",),
    "SqueezeNet": ("features",),
    "SwinTransformer": ("permute", "norm"),
    "SwinTransformerV2": ("norm",),
}
"""Last convolutional stage by class name of the model; the first existing name wins (torchvision's, then timm's)."""

_CHANNELS_LAST = {"SwinTransformer", "SwinTransformerV2"}
"""Families whose blocks output (B, u, v, K); convolutions and permutations in them output (B, K, u, v)."""
_CHANNELS_FIRST_AGAIN = {"Conv2d", "AdaptiveAvgPool2d", "Permute"}

_POOLED_LAST = ("AlexNet", "VGG")


def resolve_layer(model: nn.Module, layer: str | nn.Module) -> tuple[str, nn.Module]:
    """Return the name of the target layer and its module.

    Args:
        model: the classifier.
        layer: a module's name, the module itself, or "auto" for the last stage of a known family.

    Raises:
        LayerError: the name is unknown, the module is not part of the model, or "auto" does not know the family.
    """
    modules = dict(model.named_modules())
    if not isinstance(layer, (str, nn.Module)):
        raise LayerError(f"a layer must be a name or a module of the model, not {type(layer).__name__}")
    if isinstance(layer, nn.Module):
        name = next((name for name, module in modules.items() if module is layer and name), None)
        if name is None:
            raise LayerError("the given layer is not a module of the model")
        return name, layer
    if layer == "auto":
        layer = auto_layer(model)
    if not layer or layer not in modules:
        hint = (
            nearest(layer, (name for name in modules if name)) or f"its first layers are {', '.join([*modules][1:6])}"
        )
        raise LayerError(f"the model has no layer '{layer}' ({hint})")
    return layer, modules[layer]


def auto_layer(model: nn.Module) -> str:
    """Return the name of the last convolutional stage of a model of a known family.

    Raises:
        LayerError: the family is not known; the message lists candidates.
    """
    family = type(model).__name__
    modules = dict(model.named_modules())
    if family in _POOLED_LAST:
        return _before_last_pool(model)
    if family == "VisionTransformer":
        return _last_norm_of_tokens(modules)
    for name in AUTO_LAYERS.get(family, ()):
        if name in modules:
            return name
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    parents = dict.fromkeys(name.rpartition(".")[0] or name for name in reversed(convolutions[-8:]))
    raise LayerError(
        f"'auto' does not know the family {family}; name a layer whose output is (B, K, u, v); "
        f"candidates: {', '.join(list(parents)[:6]) or 'none, since the model has no convolution'}"
    )


def _before_last_pool(model: nn.Module) -> str:
    """Return the name of the activation before the last pooling, where the grid is finer."""
    features = model.get_submodule("features")
    return f"features.{len(list(features.children())) - 2}"


def _last_norm_of_tokens(modules: dict[str, nn.Module]) -> str:
    """Return the name of the norm before the last attention, the last layer whose patch tokens reach the logits."""
    norms = [name for name in modules if name.endswith((".ln_1", ".norm1"))]
    return norms[-1]


def gives_channels_last(model: nn.Module, layer: str) -> bool:
    """Tell whether a layer outputs (B, u, v, K), in a model that is, contains or extends a channels-last family."""
    kinds = set[str]().union(*map(_kinds, model.modules()))
    return bool(kinds & _CHANNELS_LAST) and not _kinds(model.get_submodule(layer)) & _CHANNELS_FIRST_AGAIN


def _kinds(module: nn.Module) -> set[str]:
    """Return the names of a module's class and base classes."""
    return {kind.__name__ for kind in type(module).__mro__}


def checked_stages(model: nn.Module, stages: Sequence[str], layer: str) -> tuple[str, ...]:
    """Return the names of the requested stages; raise LayerError unless they differ and end with the target layer."""
    names = tuple(resolve_layer(model, stage)[0] for stage in stages)
    if len(set(names)) != len(names) or not names or names[-1] != layer:
        raise LayerError(
            f"stages must be different layers, shallow to deep, the last one being the target layer '{layer}'"
        )
    return names


def find_stages(model: nn.Module, layer: str, pixels_BCHW: Tensor, run: Callable[[Tensor], object]) -> tuple[str, ...]:
    """Return the last layer of each resolution up to the target layer, shallow to deep, including the target layer.

    Candidates are the siblings of the target layer and of the modules that contain it. Layers inside of other blocks
    are not considered. Resolutions finer than a quarter of the image's sides are left out: their maps show mostly
    edges, and they need the most memory.

    Args:
        model: the classifier.
        layer: name of the target layer.
        pixels_BCHW: images for one forward pass.
        run: runs a forward pass.
    """
    cells = dict[str, int]()

    def record(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            cells.pop(name, None)  # a module that runs twice counts where it ran last
            sides = output.shape[1:3] if gives_channels_last(model, name) else output.shape[2:4]
            cells[name] = sides[0] * sides[1]

    with ExitStack() as stack:
        for name in _candidates(model, layer):
            hook = lambda _module, _inputs, output, name=name: record(name, output)  # noqa: E731
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        run(pixels_BCHW)
    return (*_last_of_each_size(cells, layer, pixels_BCHW.shape[-2] * pixels_BCHW.shape[-1] // 16), layer)


def _candidates(model: nn.Module, layer: str) -> Iterator[str]:
    """Yield the siblings of the target layer and of the modules that contain it, with children of sequential ones."""
    parts = layer.split(".")
    for depth in range(len(parts)):
        parent = ".".join(parts[:depth])
        for child, module in model.get_submodule(parent).named_children():
            name = f"{parent}.{child}" if parent else child
            if name == layer or not f"{layer}.".startswith(f"{name}."):
                yield name
                if isinstance(module, nn.Sequential):
                    yield from (f"{name}.{grandchild}" for grandchild, _ in module.named_children())
            if name == layer:
                return


def _last_of_each_size(cells: dict[str, int], layer: str, finest: int) -> list[str]:
    """Return the last layer of each grid size from `finest` cells to the target's.

    A grid starts a new stage only if it has more than 1.5 times the cells of the next coarser stage.
    """
    kept, coarser = list[str](), cells.get(layer, finest)
    for name in reversed(list(itertools.takewhile(lambda name: name != layer, cells))):
        if 1.5 * coarser < cells[name] <= finest:
            kept.append(name)
            coarser = cells[name]
    return kept[::-1]
