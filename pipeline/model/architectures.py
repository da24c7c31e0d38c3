"""Builds the architecture that a run file names: of torchvision, of timm, or by a function of the user's."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pipeline.errors import ConfigError, first_line, nearest
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess

_WHERE = "model.name"
_RANDOM = "random"
"""`weights: random` initialises the weights from seed 0, for tests and benchmarks."""


def build_architecture(config: ModelConfig) -> tuple[nn.Module, Preprocess]:
    """Build the model, with the library's pretrained weights if requested, and return it with its preprocessing."""
    source, slash, name = config.name.partition("/")
    if slash and source == "torchvision":
        return _torchvision(name, config)
    if slash and source == "timm":
        return _timm(name, config)
    if ":" in config.name:
        return _import_model(config.name), Preprocess(224, 256)
    raise ConfigError.one(
        _WHERE, f"'{config.name}' is not a model name", "use torchvision/NAME, timm/NAME or package.module:function"
    )


def _torchvision(name: str, config: ModelConfig) -> tuple[nn.Module, Preprocess]:
    from torchvision import models  # imported here: it takes two seconds

    known = models.list_models(module=models)
    if name not in known:
        raise ConfigError.one(_WHERE, f"torchvision has no classifier '{name}'", nearest(name, known))
    options = models.get_model_weights(name)
    named = _named_weights(options, config.weights)
    extra: dict[str, Any] = {} if config.num_classes is None else {"num_classes": config.num_classes}
    if name in ("googlenet", "inception_v3") and named is None:
        extra["init_weights"] = True  # leaving it out causes a warning
    model = _build_library_model(lambda: models.get_model(name, weights=named, **extra))
    return model, _torchvision_preprocess((named or options.DEFAULT).transforms())


def _named_weights(options: Any, weights: str | None) -> Any:  # noqa: ANN401 - torchvision's enums are untyped
    if weights is None or weights == _RANDOM or "." in weights:
        return None
    known = ["DEFAULT", *(entry.name for entry in options)]
    if weights not in known:
        raise ConfigError.one("model.weights", f"the model has no weights '{weights}'", nearest(weights, known))
    return options.DEFAULT if weights == "DEFAULT" else options[weights]


def _torchvision_preprocess(transforms: Any) -> Preprocess:  # noqa: ANN401 - torchvision is untyped
    return Preprocess(
        transforms.crop_size[0],
        transforms.resize_size[0],
        transforms.interpolation.value,
        tuple(transforms.mean),
        tuple(transforms.std),
    )


def _timm(name: str, config: ModelConfig) -> tuple[nn.Module, Preprocess]:
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError:
        raise ConfigError.one(_WHERE, "timm is not installed", "run pip install 'camatlas[timm]'") from None
    if name.partition(".")[0] not in timm.list_models():
        raise ConfigError.one(_WHERE, f"timm has no model '{name}'", nearest(name, timm.list_models()))
    weights = config.weights
    if weights not in (None, "DEFAULT", _RANDOM) and "." not in str(weights):
        raise ConfigError.one(
            "model.weights", f"timm has no weights '{weights}'", "use DEFAULT, random or a .safetensors file"
        )
    extra: dict[str, Any] = {} if config.num_classes is None else {"num_classes": config.num_classes}
    model = _build_library_model(lambda: timm.create_model(name, pretrained=weights == "DEFAULT", **extra))
    data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    crop = data["input_size"][-1]
    resize = math.floor(crop / data["crop_pct"])
    return model, Preprocess(crop, resize, data["interpolation"], tuple(data["mean"]), tuple(data["std"]))


def _import_model(name: str) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError.one(_WHERE, f"cannot import '{name}': {error}") from None
    model = _build_seeded(function)
    if not isinstance(model, nn.Module):
        raise ConfigError.one(_WHERE, f"'{name}' returned {type(model).__name__}, not a torch module")
    return model


def _build_seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model with random initialisation from seed 0; the caller's random state is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def _build_library_model(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model of a library, which may download its pretrained weights."""
    try:
        return _build_seeded(build)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError.one(
            "model.weights",
            f"cannot build the model with these weights: {first_line(error)}",
            "use a .safetensors file",
        ) from None
