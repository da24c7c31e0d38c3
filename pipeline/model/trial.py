"""The trial pass: a few images run through a model before a run, so that an unsuitable model is refused at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, LayerError, Mistakes
from pipeline.model.arithmetic import Switches, multiplying
from pipeline.model.engine import Exact, check_parameters
from pipeline.model.evidence import Evidence
from pipeline.model.kinds import WHERE, check_kind, exceptions_told
from pipeline.model.layers import resolve_layer
from pipeline.model.layout_choice import FoundLayouts
from pipeline.model.outputs import OutputKey, OutputKind, Outputs
from pipeline.model.outputs_trial import find_outputs
from pipeline.model.probe import Probe
from pipeline.model.steadiness import Steadiness, structure
from pipeline.model.tasks import Detection, Task
from pipeline.model.tasks.detection import check_padding
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
        layouts: how the outputs of the target layer and the stages are read.
        notes: what the user should know about the model, one sentence each.
        class_names: names of the outputs, in their order, as far as the model or its embeddings name them.
        identity: what identifies the model in a run instead of its name in the run file.
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
    layouts: FoundLayouts
    notes: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    identity: Mapping[str, str] = field(default_factory=dict)


def tried(
    model: nn.Module, config: ModelConfig, preprocess: Preprocess, weights_digest: str, task: Task | None = None
) -> LoadedModel:
    """Resolve the layers and run images through the model, so that an unsuitable model is refused before the run.

    Raises:
        ConfigError: every mistake in layers and outputs that was found, or what the model itself does wrong.
    """
    mistakes = Mistakes()
    pixels_BCHW = random_images((preprocess.channels, *preprocess.size))
    outputs, notes = Outputs("raw", config.output_key, task=task), tuple[str, ...]()  # a stand-in for more mistakes
    trial = model if task is None else task.for_trials(model)
    with mistakes.collecting(), exceptions_told(model, pixels_BCHW):
        outputs, notes, steadiness = _steady(trial, pixels_BCHW, config.outputs, config.output_key, task)
        steadiness.check_finite()
    in_layers = Mistakes()
    with in_layers.collecting(), exceptions_told(model, pixels_BCHW[:1], "the forward or backward pass"):
        if any(mistake.where == WHERE for mistake in mistakes.found):  # it does not run
            _check_names(model, {"model.layer": [config.layer], "model.stages": config.stages})
        else:
            probe, evidence, about_layer = _captured(trial, config, outputs.for_trials(), pixels_BCHW[:1])
            notes += about_layer
            _check_found(evidence)
    mistakes.found += [each for each in in_layers.found if each.where in _OF_LAYERS or not mistakes.found]
    mistakes.raise_if_any()
    with exceptions_told(model, pixels_BCHW[:1]):
        steadiness.check_copy(evidence.logits_BN)
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
        layouts=probe.layouts(pixels_BCHW),
        notes=notes,
    )


def tried_outputs(
    model: nn.Module,
    like_BCHW: Tensor,
    kind: Literal["auto"] | OutputKind,
    key: OutputKey | None,
    task: Task | None = None,
) -> Outputs:
    """Check a model as before a run, on random images like the given ones, and return how its outputs are read.

    A model that passed is not run again, as long as its modules are the same; its parameters may change.

    Raises:
        LayerError: the parameters are not float32.
        ConfigError: the model cannot be explained, or raised an exception, or its outputs are not of that kind.
    """
    check_kind(model, task)
    check_parameters(model)
    passed = _PASSED.setdefault(model, {})
    question = (kind, key, tuple(like_BCHW.shape[1:]), structure(model), task)
    if question not in passed:
        device = next((parameter.device for parameter in model.parameters()), like_BCHW.device)
        pixels_BCHW = random_images(like_BCHW.shape[1:]).to(device)
        with torch.inference_mode(False), exceptions_told(model, pixels_BCHW):
            trial = model if task is None else task.for_trials(model)
            outputs, _, _ = _steady(trial, pixels_BCHW, kind, key, task)
        passed[question] = outputs
    return passed[question]


def _steady(
    model: nn.Module,
    pixels_BCHW: Tensor,
    kind: Literal["auto"] | OutputKind,
    key: OutputKey | None,
    task: Task | None,
) -> tuple[Outputs, tuple[str, ...], Steadiness]:
    """Find out how outputs are read, with notes, and check that they do not depend on chance or on the batch."""
    if isinstance(task, Detection):
        check_padding(model, pixels_BCHW)
    with _arithmetic_kept():
        outputs, notes = find_outputs(model, pixels_BCHW, kind, key, task)
        scored = outputs.for_trials()
        return outputs, notes, Steadiness(model, Exact(model, scored).logits, pixels_BCHW, scored.missed)


@contextmanager
def _arithmetic_kept() -> Iterator[None]:
    """Raise ConfigError if a pass sets how float32 numbers are multiplied, which is for the run's precision to say."""
    with multiplying("fp32"):
        before = Switches.now()
        yield
        if Switches.now() == before:
            return
    raise ConfigError.one(
        WHERE,
        "its forward pass changes how PyTorch multiplies float32 numbers, so that fp32 would not be fp32 on a GPU",
        "remove the call (such as torch.set_float32_matmul_precision), and choose compute.precision instead",
    )


def _check_found(evidence: Evidence) -> None:
    """Raise ConfigError if the scores of a detector do not depend on the layer; a classifier's pass has raised by then.

    Noise may have no score but 0, so all classes are differentiated together.
    """
    task = evidence.outputs.task
    if task is None or not task.may_miss:
        return
    grads = evidence.gradients(lambda scores_BN, _targets_B: scores_BN.sum(1))
    if any(bool(grad.any()) for grad in grads.values()):
        return
    if bool(evidence.outputs.missed(evidence.logits_BN).all()):
        raise ConfigError.one(
            WHERE,
            "the detector finds nothing in random images, so that its layers cannot be tried",
            "keep its least score in an attribute score_thresh, which is lowered for the trial",
        )
    raise ConfigError.one(
        "model.layer",
        f"the scores of the detector do not depend on layer '{evidence.layer}'",
        "name a layer that every box reads, such as the last of the network before its heads",
    )


def _captured(
    model: nn.Module, config: ModelConfig, outputs: Outputs, pixels_1CHW: Tensor
) -> tuple[Probe, Evidence, tuple[str, ...]]:
    """Capture the target layer, then all stages, with their gradients; also returns notes about the target layer."""
    mistakes = Mistakes()
    with mistakes.collecting(), _layer_errors("model.layer"):
        probe = Probe(model, config.layer, outputs=outputs, layout=config.layout)
        probe.capture(pixels_1CHW, gradients=True)
    with mistakes.collecting():
        _check_names(model, {"model.stages": config.stages})
    mistakes.raise_if_any()
    with _layer_errors("model.stages"):
        notes = probe.resolve(pixels_1CHW)
        if config.stages != "auto":
            found = probe.layouts(pixels_1CHW)
            probe = Probe(model, probe.layer, stages=config.stages, outputs=outputs, layout=found)
        return probe, probe.capture(pixels_1CHW, gradients=True, stages=True), notes


def _check_names(model: nn.Module, named: Mapping[str, str | Sequence[str]]) -> None:
    """Raise ConfigError for names of layers that the model does not have, by the keys of the run file."""
    mistakes = Mistakes()
    for where, names in named.items():
        for name in () if isinstance(names, str) else names:
            with mistakes.collecting(), _layer_errors(where):
                if name != "auto":
                    resolve_layer(model, name)
    mistakes.raise_if_any()


@contextmanager
def _layer_errors(where: str) -> Iterator[None]:
    """Turn an error about a layer into a mistake in the run file."""
    try:
        yield
    except LayerError as error:
        raise ConfigError.one(where, str(error)) from None


def model_of_trials(model: nn.Module, outputs: Outputs) -> nn.Module:
    """Return a model for trials on random images: of a detector a copy that keeps detections of any score."""
    return model if outputs.task is None else outputs.task.for_trials(model)


def random_images(shape: Sequence[int]) -> Tensor:
    """Return a few random images of a shape (C, H, W), always the same ones."""
    return torch.randn((_IMAGES, *shape), generator=torch.Generator().manual_seed(0))
