"""The trial pass: a few images run through a model before a run, so that an unsuitable model is refused at once."""

from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, LayerError, Mistakes
from pipeline.model.baselines import Normalisation
from pipeline.model.engine import Exact, check_parameters
from pipeline.model.evidence import Evidence
from pipeline.model.kinds import WHERE, check_kind, exceptions_told
from pipeline.model.layers import resolve_layer
from pipeline.model.outputs import OutputKey, OutputKind, Outputs
from pipeline.model.outputs_trial import find_outputs
from pipeline.model.probe import Probe
from pipeline.model.steadiness import Steadiness, check_copy, structure
from pipeline.settings.model import ModelConfig
from pipeline.settings.preprocess import Preprocess

_IMAGES = 4
"""Number of random images that a model is tried on."""
_OF_LAYERS = ("model.layer", "model.stages", "model.layout")
_PASSED: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], Outputs]] = WeakKeyDictionary()
"""How the outputs of models are read that passed the trial, by what was asked."""


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
        outputs: how the model's return value becomes logits and confidences.
        notes: what the user should know about the model, one sentence each.
    """

    model: nn.Module
    layer: str
    preprocess: Preprocess
    weights_digest: str
    classes: int
    stages: tuple[str, ...]
    stage_shapes: tuple[tuple[int, int, int], ...]
    linear_head: bool
    outputs: Outputs
    notes: tuple[str, ...]


def tried(model: nn.Module, config: ModelConfig, preprocess: Preprocess, weights_digest: str) -> LoadedModel:
    """Resolve the layers and run images through the model, so that an unsuitable model is refused before the run.

    Raises:
        ConfigError: every mistake in layers and outputs that was found, and what the model itself does wrong.
    """
    mistakes = Mistakes()
    with mistakes.collecting():
        _check_names(model, config)
    random_BCHW, grey_1CHW = _random_images(preprocess), _grey_image(preprocess)
    outputs, notes = Outputs("raw", config.output_key), tuple[str, ...]()  # a stand-in, to look for more mistakes
    with mistakes.collecting(), exceptions_told(model, random_BCHW):
        outputs, notes = find_outputs(model, random_BCHW, config.outputs, config.output_key)
        steadiness = Steadiness(model, Exact(model, outputs).logits, random_BCHW)
        steadiness.check_finite()
    if not any(mistake.where == WHERE for mistake in mistakes.found):
        of_layers = Mistakes()
        with of_layers.collecting(), exceptions_told(model, grey_1CHW, "the forward or backward pass"):
            probe, evidence = _captured(model, config, outputs, grey_1CHW)
            check_copy(Exact(model, outputs).logits(grey_1CHW), evidence.logits_BN)
        is_new = mistakes.found == []
        mistakes.found += [mistake for mistake in of_layers.found if is_new or mistake.where in _OF_LAYERS]
    mistakes.raise_if_any()
    with exceptions_told(model, random_BCHW):
        steadiness.check_again()
    return LoadedModel(
        model=model,
        layer=probe.layer,
        preprocess=preprocess,
        weights_digest=weights_digest,
        classes=evidence.logits_BN.shape[1],
        stages=evidence.layers,
        stage_shapes=tuple((acts.shape[1], acts.shape[2], acts.shape[3]) for acts in evidence.acts.values()),
        linear_head=probe.linear_head(evidence) is not None,
        outputs=outputs,
        notes=notes,
    )


def tried_outputs(
    model: nn.Module, like_BCHW: Tensor, kind: Literal["auto"] | OutputKind, key: OutputKey | None
) -> Outputs:
    """Check a model as before a run, on random images like the given ones, and return how its outputs are read.

    A model that passed is not run again, as long as its modules are the same; its parameters may change.

    Raises:
        LayerError: the parameters are not float32.
        ConfigError: the model cannot be explained, or raised an exception, or its outputs are not of that kind.
    """
    check_kind(model)
    check_parameters(model)
    passed = _PASSED.setdefault(model, {})
    question = (kind, key, tuple(like_BCHW.shape[1:]), structure(model))
    if question not in passed:
        device = next((parameter.device for parameter in model.parameters()), like_BCHW.device)
        random_BCHW = torch.randn(_IMAGES, *like_BCHW.shape[1:], generator=torch.Generator().manual_seed(0)).to(device)
        with torch.inference_mode(False), exceptions_told(model, random_BCHW):
            outputs, _ = find_outputs(model, random_BCHW, kind, key)
            Steadiness(model, Exact(model, outputs).logits, random_BCHW)
        passed[question] = outputs
    return passed[question]


def _captured(model: nn.Module, config: ModelConfig, outputs: Outputs, pixels_1CHW: Tensor) -> tuple[Probe, Evidence]:
    """Capture the target layer, then all stages, with their gradients."""
    try:
        name, _ = resolve_layer(model, config.layer)
        Probe(model, name, outputs=outputs).capture(pixels_1CHW, gradients=True)
    except LayerError as error:
        raise ConfigError.one("model.layer", str(error)) from None
    try:
        probe = Probe(model, name, stages=None if config.stages == "auto" else config.stages, outputs=outputs)
        return probe, probe.capture(pixels_1CHW, gradients=True, stages=True)
    except LayerError as error:
        raise ConfigError.one("model.stages", str(error)) from None


def _check_names(model: nn.Module, config: ModelConfig) -> None:
    """Raise ConfigError for names of layers that the model does not have; they show without running it."""
    named = {"model.layer": [config.layer], "model.stages": [] if config.stages == "auto" else config.stages}
    mistakes = Mistakes()
    for where, names in named.items():
        for name in names:
            with mistakes.collecting():
                try:
                    if name != "auto":
                        resolve_layer(model, name)
                except LayerError as error:
                    raise ConfigError.one(where, str(error)) from None
    mistakes.raise_if_any()


def _random_images(preprocess: Preprocess) -> Tensor:
    return torch.randn(_IMAGES, preprocess.channels, *preprocess.size, generator=torch.Generator().manual_seed(0))


def _grey_image(preprocess: Preprocess) -> Tensor:
    pixels_BCHW = torch.full((1, preprocess.channels, *preprocess.size), 0.5)
    return Normalisation(preprocess.mean, preprocess.std).apply(pixels_BCHW)
