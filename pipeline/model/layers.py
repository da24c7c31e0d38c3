"""The target layer: by name, by module, or the last convolutional stage of a known family."""

from torch import nn

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
}
"""Last convolutional stage by class name, in torchvision's naming and then in timm's."""

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
    if isinstance(layer, nn.Module):
        name = next((name for name, module in modules.items() if module is layer and name), None)
        if name is None:
            raise LayerError("the given layer is not a module inside the model")
        return name, layer
    if layer == "auto":
        layer = auto_layer(model)
    if not layer or layer not in modules:
        raise LayerError(f"the model has no layer '{layer}' ({nearest(layer, (name for name in modules if name))})")
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
