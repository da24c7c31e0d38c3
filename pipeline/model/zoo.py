"""Builds the model that a run file describes: architecture, weights, preprocessing, target layer and stages."""

from torch import nn

from pipeline.errors import ConfigError, Mistakes
from pipeline.model.architectures import build_architecture
from pipeline.model.trial import LoadedModel, tried
from pipeline.model.weights import digest, load_weights
from pipeline.settings.model import ModelConfig, PreprocessConfig
from pipeline.settings.preprocess import Preprocess

__all__ = ["LoadedModel", "load_model"]


def load_model(config: ModelConfig) -> LoadedModel:
    """Build a model, load its weights, and check it with a few forward passes.

    Raises:
        ConfigError: the name, preprocessing, weights, their sha256, a layer or the logits are unsuitable. Problems
            with the weights and with the layers are reported together.
    """
    mistakes = Mistakes()
    model, preprocess = build_architecture(config)
    preprocess = _preprocess_for(config, preprocess)
    weights_digest = ""
    with mistakes.collecting():
        if config.weights is not None and "." in config.weights:
            load_weights(model, config.weights, allow_pt=config.allow_pt)
        weights_digest = _checked_digest(model, config)
    model.eval()
    with mistakes.collecting():
        loaded = tried(model, config, preprocess, weights_digest)
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
