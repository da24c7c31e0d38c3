"""Builds segmentation and detection models of torchvision by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from pipeline.errors import ConfigError
from pipeline.model.weight_files import read_weights
from pipeline.settings.libraries import import_torchvision
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess

_AUXILIARY = "aux_classifier."
"""Beginning of the names of weights that only training uses; a file has them or not."""
_MODULES = ("segmentation", "detection")


def tasks_of_torchvision() -> dict[str, str]:
    """Return the names of torchvision's models that are no classifiers, each with its task."""
    import_torchvision()
    from torchvision import models  # imported here, because it is slow

    return {name: task for task in _MODULES for name in models.list_models(module=getattr(models, task))}


def arguments_of(name: str, config: ModelConfig) -> dict[str, Any]:
    """Return the arguments of torchvision's function, beside the weights: no other weights are downloaded."""
    arguments: dict[str, Any] = {"weights_backbone": None}
    if config.num_classes is not None:
        arguments["num_classes"] = config.num_classes
    if tasks_of_torchvision()[name] == "segmentation" and not name.startswith("lraspp") and _has_auxiliary(config):
        arguments["aux_loss"] = True
    return arguments


def preprocess_of(model: nn.Module, transforms: Any) -> Preprocess:  # noqa: ANN401 - torchvision is untyped
    """Return the preprocessing of a model.

    A segmentation gets the centre of the image at the size of its training. A detector resizes and normalises by
    itself, so it gets the whole image, squashed to the square that it would make of it.

    Args:
        model: the model.
        transforms: those of its weights.
    """
    own: Any = getattr(model, "transform", None)
    if own is None:
        (side,) = transforms.resize_size
        return Preprocess(side, side, transforms.interpolation.value, tuple(transforms.mean), tuple(transforms.std))
    side = own.fixed_size[0] if own.fixed_size is not None else own.min_size[-1]
    return Preprocess(int(side), None, mean=(0.0,) * 3, std=(1.0,) * 3)


def _has_auxiliary(config: ModelConfig) -> bool:
    if config.weights is None or "." not in config.weights:
        return False
    try:
        return any(_AUXILIARY in name for name in _names(read_weights(config.weights, allow_pt=config.allow_pt)))
    except ConfigError:  # said when the weights are loaded
        return False


def _names(content: object) -> Iterator[str]:
    """Yield the names of tensors in a weights file, with those of dicts inside of it."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        yield str(name)
        yield from _names(value)
