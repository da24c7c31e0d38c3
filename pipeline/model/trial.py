"""The trial pass: a few images run through a model before a run, so that an unsuitable model is refused at once."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, LayerError
from pipeline.model.baselines import Normalisation
from pipeline.model.layers import resolve_layer
from pipeline.model.probe import Probe
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess

_WHERE = "model.name"
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


def tried(model: nn.Module, config: ModelConfig, preprocess: Preprocess, weights_digest: str) -> LoadedModel:
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
