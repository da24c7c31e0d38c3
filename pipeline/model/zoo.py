"""Builds the model that a run file describes: architecture, weights, preprocessing, target layer and stages."""

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, LayerError, Mistakes, first_line, nearest
from pipeline.model.baselines import Normalisation
from pipeline.model.layers import resolve_layer
from pipeline.model.probe import Probe
from pipeline.model.weights import digest, load_weights
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import ModelConfig, PreprocessConfig

_WHERE = "model.name"
_RANDOM = "random"
"""`weights: random` initialises the weights from seed 0, for tests and benchmarks."""
_BATCH_TOLERANCE = 1e-3
"""How far other images of a batch may change a logit, relative to the largest logit; rounding stays far below."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to be explained, with facts about it.

    Attributes:
        model: the model, in evaluation mode, on the CPU.
        layer: name of the target layer.
        preprocess: how images become inputs of the model.
        weights_digest: sha256 of the parameters and buffers.
        classes: number of logits.
        stages: layers for the methods that combine several, shallow to deep; the last one is the target layer.
        stage_shapes: (K, u, v) of each stage for one image.
        linear_head: whether global average pooling and one linear layer follow the target layer.
    """

    model: nn.Module
    layer: str
    preprocess: Preprocess
    weights_digest: str
    classes: int
    stages: tuple[str, ...]
    stage_shapes: tuple[tuple[int, int, int], ...]
    linear_head: bool


def load_model(config: ModelConfig) -> LoadedModel:
    """Build a model, load its weights, and check it with a few forward passes.

    Raises:
        ConfigError: the name, preprocessing, weights, their sha256, a layer or the logits are unsuitable. Problems
            with the weights and with the layers are reported together.
    """
    mistakes = Mistakes()
    model, preprocess = _architecture(config)
    preprocess = _preprocess_for(config, preprocess)
    weights_digest = ""
    with mistakes.collecting():
        if config.weights is not None and "." in config.weights:
            load_weights(model, config.weights, allow_pt=config.allow_pt)
        weights_digest = _checked_digest(model, config)
    model.eval()
    with mistakes.collecting():
        loaded = _validated(model, config, preprocess, weights_digest)
    mistakes.raise_if_any()
    return loaded


def _checked_digest(model: nn.Module, config: ModelConfig) -> str:
    """Return the sha256 of the weights; raise ConfigError if the run file names another one."""
    found = digest(model)
    if config.weights_sha256 not in (None, found):
        raise ConfigError.one(
            "model.weights_sha256", f"the weights have another sha256, {found}", "find out why the weights changed"
        )
    return found


def _architecture(config: ModelConfig) -> tuple[nn.Module, Preprocess]:
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


def _preprocess_for(config: ModelConfig, default: Preprocess) -> Preprocess:
    """Return the preprocessing of the run file, or the model's default."""
    chosen = config.preprocess
    if isinstance(chosen, PreprocessConfig):
        if chosen.resize is not None and chosen.resize < chosen.crop:
            raise ConfigError.one("model.preprocess", f"crop {chosen.crop} is larger than resize {chosen.resize}")
        return Preprocess(chosen.crop, chosen.resize, chosen.interpolation, chosen.mean, chosen.std)
    if chosen == "squash":
        return Preprocess(default.crop, None, default.interpolation, default.mean, default.std)
    return default


def _validated(model: nn.Module, config: ModelConfig, preprocess: Preprocess, weights_digest: str) -> LoadedModel:
    """Resolve the layers and run images through the model, so that an unsuitable model is refused before the run."""
    try:
        name, _ = resolve_layer(model, config.layer)
        Probe(model, name).capture(_grey_image(preprocess), gradients=True)
    except LayerError as error:
        raise ConfigError.one("model.layer", str(error)) from None
    _check_logits(Probe(model, name), preprocess)
    try:
        probe = Probe(model, name, stages=None if config.stages == "auto" else config.stages)
        evidence = probe.capture(_grey_image(preprocess), gradients=True, stages=True)
    except LayerError as error:
        raise ConfigError.one("model.stages", str(error)) from None
    return LoadedModel(
        model=model,
        layer=name,
        preprocess=preprocess,
        weights_digest=weights_digest,
        classes=evidence.logits_BN.shape[1],
        stages=evidence.layers,
        stage_shapes=tuple((acts.shape[1], acts.shape[2], acts.shape[3]) for acts in evidence.acts.values()),
        linear_head=probe.linear_head(evidence) is not None,
    )


def _check_logits(probe: Probe, preprocess: Preprocess) -> None:
    """Raise ConfigError if logits are not finite, or depend on the other images in a batch, or on chance."""
    random_BCHW = torch.randn(8, 3, preprocess.crop, preprocess.crop, generator=torch.Generator().manual_seed(0))
    together_BN = probe.capture(random_BCHW, gradients=False).logits_BN
    alone_1N = probe.capture(random_BCHW[:1], gradients=False).logits_BN
    if not together_BN.isfinite().all():
        raise ConfigError.one(
            _WHERE,
            "the logits of random images contain NaN or infinity",
            "check the model's weights and model.preprocess",
        )
    scale = float(together_BN.abs().max())
    if float((together_BN[:1] - alone_1N).abs().max()) > _BATCH_TOLERANCE * max(scale, 1e-6):
        raise ConfigError.one(
            _WHERE,
            "an image has other logits alone than in a batch, although the model is in evaluation mode",
            "a layer normalises over the batch or applies dropout; build the model without it",
        )


def _grey_image(preprocess: Preprocess) -> Tensor:
    pixels_BCHW = torch.full((1, 3, preprocess.crop, preprocess.crop), 0.5)
    return Normalisation(preprocess.mean, preprocess.std).apply(pixels_BCHW)
