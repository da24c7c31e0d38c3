"""The target layer: by name, by module, or the last stage of a known family; and the stages that lead to it."""

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
"""Last stage by class name, in torchvision's naming and then in timm's."""

_CHANNELS_LAST = {"SwinTransformer", "SwinTransformerV2"}
"""Families whose blocks give (B, u, v, K); convolutions and permutations in them give (B, K, u, v)."""
_CHANNELS_FIRST_AGAIN = {"Conv2d", "AdaptiveAvgPool2d", "Permute"}

_POOLED_LAST = ("AlexNet", "VGG")


def resolve_layer(model: nn.Module, layer: str | nn.Module) -> tuple[str, nn.Module]:
    """Find the target layer and its name.

    Args:
        model: the classifier.
        layer: a module's name, the module itself, or "auto".

    Raises:
        LayerError: the name is unknown, the module is not part of the model, or "auto" does not know the family.
    """
    modules = dict(model.named_modules())
    if not isinstance(layer, (str, nn.Module)):
        raise LayerError(f"a layer is a name or a module of the model, not {type(layer).__name__}")
    if isinstance(layer, nn.Module):
        name = next((name for name, module in modules.items() if module is layer and name), None)
        if name is None:
            raise LayerError("the given layer is not a module inside the model")
        return name, layer
    if layer == "auto":
        layer = auto_layer(model)
    if not layer or layer not in modules:
        hint = nearest(layer, (name for name in modules if name)) or f"the first ones are {', '.join([*modules][1:6])}"
        raise LayerError(f"the model has no layer '{layer}' ({hint})")
    return layer, modules[layer]


def auto_layer(model: nn.Module) -> str:
    """Name the last convolutional stage of a known family.

    Raises:
        LayerError: the family is not known; the sentence names candidates.
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
        f"'auto' does not know the family {family}; name a layer whose output is (B, K, u, v), "
        f"for example one of: {', '.join(list(parents)[:6]) or 'none found: the model has no convolution'}"
    )


def _before_last_pool(model: nn.Module) -> str:
    """The activation before the last pooling, where the grid is still fine."""
    features = model.get_submodule("features")
    return f"features.{len(list(features.children())) - 2}"


def _last_norm_of_tokens(modules: dict[str, nn.Module]) -> str:
    """The norm before the last block's attention: behind it, patch tokens no longer reach the class token's logit."""
    norms = [name for name in modules if name.endswith((".ln_1", ".norm1"))]
    return norms[-1]


def gives_channels_last(model: nn.Module, layer: str) -> bool:
    """Tell whether a layer of a family with channels last keeps them there; wrapped and derived models included."""
    kinds = set[str]().union(*map(_kinds, model.modules()))
    return bool(kinds & _CHANNELS_LAST) and not _kinds(model.get_submodule(layer)) & _CHANNELS_FIRST_AGAIN


def _kinds(module: nn.Module) -> set[str]:
    """Name the classes that a module is of, the ones it is derived from included."""
    return {kind.__name__ for kind in type(module).__mro__}


def checked_stages(model: nn.Module, stages: Sequence[str], layer: str) -> tuple[str, ...]:
    """Name the stages that were asked for; raises LayerError unless they differ and end with the target layer."""
    names = tuple(resolve_layer(model, stage)[0] for stage in stages)
    if len(set(names)) != len(names) or not names or names[-1] != layer:
        raise LayerError(f"stages are different layers, shallow to deep, and end with the target layer '{layer}'")
    return names


def find_stages(model: nn.Module, layer: str, pixels_BCHW: Tensor, run: Callable[[Tensor], object]) -> tuple[str, ...]:
    """Name the last layer of each resolution on the way to the target layer, shallow to deep, the target included.

    Only modules that the target layer stands in line with are looked at (its siblings, and those of the modules it
    lies in), so that no layer inside a block is taken. Resolutions finer than a quarter of the image's sides are left
    out: their maps are mostly edges, and they cost the most memory.

    Args:
        model: the classifier.
        layer: name of the target layer.
        pixels_BCHW: images to run.
        run: does a forward pass.
    """
    cells = dict[str, int]()

    def keep(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            cells.pop(name, None)  # the last run decides the order
            sides = output.shape[1:3] if gives_channels_last(model, name) else output.shape[2:4]
            cells[name] = sides[0] * sides[1]

    with ExitStack() as stack:
        for name in _in_line(model, layer):
            hook = lambda _module, _inputs, output, name=name: keep(name, output)  # noqa: E731
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        run(pixels_BCHW)
    return (*_last_of_each(cells, layer, pixels_BCHW.shape[-2] * pixels_BCHW.shape[-1] // 16), layer)


def _in_line(model: nn.Module, layer: str) -> Iterator[str]:
    """Modules that run one after the other up to the target layer; sequences count by their parts too."""
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


def _last_of_each(cells: dict[str, int], layer: str, finest: int) -> list[str]:
    """The last layer of each size between the finest wanted and the target's; sizes within a half are one stage."""
    kept, coarser = list[str](), cells.get(layer, finest)
    for name in reversed(list(itertools.takewhile(lambda name: name != layer, cells))):
        if 1.5 * coarser < cells[name] <= finest:
            kept.append(name)
            coarser = cells[name]
    return kept[::-1]
