"""Reads from the section `model` of a run file which task a model has, and completes it when the model is built."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.errors import ConfigError, Mistake, Mistakes
from pipeline.model.tasks.base import Task
from pipeline.model.tasks.detection import Detection
from pipeline.model.tasks.embeddings import Similarity, ZeroShot
from pipeline.model.tasks.function import FunctionTask
from pipeline.model.tasks.segmentation import Segmentation
from pipeline.model.tasks.vectors import NamedVectors, read_vectors
from pipeline.settings.functions import imported, source_digest
from pipeline.settings.model import ModelConfig

_WHERE = "model.task"
_TEXTS, _REFERENCES, _SCALE = "model.text_embeddings", "model.reference_embeddings", "model.logit_scale"
_LARGEST_SCALE = 1000.0
"""CLIP and its relatives limit their scale to 100; a larger exponential is of a number that is no logarithm."""
_LIKE_A_LOGARITHM = 10.0
"""A scale below this is rather the logarithm of one: CLIP's parameter starts at log 14 and ends at log 100."""


@dataclass(frozen=True)
class StatedTask:
    """What a run file says of a model's task, with the files and functions that it names.

    Attributes:
        config: the section `model`.
        name: segmentation, detection, similarity, zero_shot, or the name of a function; "" for a classifier.
        vectors: the named embeddings.
        notes: what the user should know, one sentence each.
    """

    config: ModelConfig
    name: str
    vectors: NamedVectors | None = None
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names that the embeddings give to the outputs; None without."""
        return None if self.vectors is None else self.vectors.names

    def of(self, model: nn.Module) -> tuple[Task | None, tuple[str, ...]]:
        """Return the task of a model that is built, and further notes.

        Raises:
            ConfigError: the model does not say how many classes it has, or which scale its cosines need.
        """
        if not self.name:
            return None, ()
        if self.vectors is None:
            return self._without_vectors(model)
        if self.name == "similarity":
            return Similarity(self.vectors.names, self.vectors.vectors_ND), ()
        return self._zero_shot(self.vectors, model)

    def _without_vectors(self, model: nn.Module) -> tuple[Task, tuple[str, ...]]:
        if self.name == "segmentation":
            return Segmentation(), ()
        if self.name != "detection":
            return _function_task(self.name), ()
        inside = getattr(model, "transform", None)
        note = "the detector normalises images by itself, so that pixels masked with fill: mean are black"
        return Detection.of(model), (note,) if hasattr(inside, "image_mean") else ()

    def _zero_shot(self, vectors: NamedVectors, model: nn.Module) -> tuple[Task, tuple[str, ...]]:
        scale, source = _scale(self.config, vectors, model)
        bias = vectors.scalars.get("logit_bias", _own(model, "logit_bias"))
        kind = self.config.outputs
        if kind == "sigmoid" and bias is None:
            raise ConfigError.one(
                "model.outputs",
                "sigmoid needs logit_bias, without which every scaled cosine is certain",
                f"add the number logit_bias to the file of {_TEXTS}, or set softmax",
            )
        if kind == "softmax" or (kind == "auto" and bias is None):
            _check_several(vectors)
        notes = [f"logits are {scale:.4g} times the cosine to the texts (logit_scale of {source})"]
        if bias is not None:
            notes.append(f"logit_bias {bias:.4g} belongs to a sigmoid; outputs: softmax would let the classes compete")
        texts = ZeroShot(vectors.names, vectors.vectors_ND, scale=scale, bias=bias)
        return texts, tuple(notes)


def stated_task(config: ModelConfig, class_names: Sequence[str] = (), of_library: str = "") -> StatedTask:
    """Read what a run file says of the task, before the model is built.

    Args:
        config: the section `model`.
        class_names: names of the run's classes (`data.classes`); empty if they are not known.
        of_library: the task of the library's module that the model is from; "" for classifiers and functions.

    Raises:
        ConfigError: settings contradict each other or have no effect, or a file or function cannot be read.
    """
    mistakes = Mistakes()
    mistakes.found.extend(_contradictions(config, of_library))
    name = "zero_shot" if config.text_embeddings else config.task or of_library
    vectors: NamedVectors | None = None
    with mistakes.collecting():
        if config.task is not None and ":" in config.task:
            _function_task(config.task)
    with mistakes.collecting():
        if config.text_embeddings:
            vectors = read_vectors(_TEXTS, config.text_embeddings, class_names)
            ZeroShot(vectors.names, vectors.vectors_ND)
    with mistakes.collecting():
        if config.reference_embeddings:
            vectors = read_vectors(_REFERENCES, config.reference_embeddings, class_names)
            Similarity(vectors.names, vectors.vectors_ND)
    mistakes.raise_if_any()
    notes = () if vectors is None else vectors.notes
    if of_library and config.task is None:
        notes = (f"'{config.name}' is a {of_library} model: {_WHERE} is {of_library}",)
    return StatedTask(config, name, vectors, notes)


def _contradictions(config: ModelConfig, of_library: str) -> Iterator[Mistake]:
    """Yield the settings that contradict each other, or have no effect."""
    task, texts, references = config.task, config.text_embeddings, config.reference_embeddings
    if of_library and (texts or task not in (None, of_library)) and ":" not in (task or ""):
        given = f"'{task}'" if task else _TEXTS
        yield Mistake(
            _WHERE, f"{given} does not fit '{config.name}', a {of_library} model", f"leave it out, or {of_library}"
        )
    if texts and (task or references):
        other = _WHERE if task else _REFERENCES
        yield Mistake(
            other, f"has no effect beside {_TEXTS}, which makes the model a classifier", "leave one of them out"
        )
    elif references and task != "similarity":
        yield Mistake(_REFERENCES, f"needs {_WHERE}: similarity", "set it, or leave the file out")
    elif task == "similarity" and not references:
        yield Mistake(_REFERENCES, f"is required by {_WHERE}: similarity", "a safetensors file of named vectors")
    if config.logit_scale is not None and not texts:
        yield Mistake(_SCALE, f"has no effect without {_TEXTS}", "leave it out")
    if config.output_key is not None and (task or of_library) not in ("", None, "segmentation", "similarity"):
        yield Mistake("model.output_key", f"has no effect on {_WHERE}: {task or of_library}", "leave it out")


def _function_task(name: str) -> FunctionTask:
    function = imported(_WHERE, name)
    return FunctionTask(function, name, source_digest(_WHERE, name, function))


def _scale(config: ModelConfig, vectors: NamedVectors, model: nn.Module) -> tuple[float, str]:
    """Return the scale of the cosines, and where it was found.

    Raises:
        ConfigError: nothing states it, or it is a logarithm where a factor is needed.
    """
    given, own = vectors.scalars.get("logit_scale"), _own(model, "logit_scale")
    if given is not None and config.logit_scale not in (None, given):
        raise ConfigError.one(
            _SCALE, f"is {config.logit_scale}, but the file of {_TEXTS} says {given}", "leave one out"
        )
    if given is not None:
        return _factor(given, own), f"the file of {_TEXTS}"
    if config.logit_scale is not None:
        return _factor(config.logit_scale, own), _SCALE
    if own is None:
        raise ConfigError.one(
            _SCALE,
            "is not known: neither the file of the texts nor the model has it",
            "100 for OpenAI's CLIP models: the factor itself, not its logarithm",
        )
    if own > math.log(_LARGEST_SCALE):
        raise ConfigError.one(
            _SCALE,
            f"the model's parameter logit_scale is {own:.4g}, which is no logarithm of a factor",
            f"set {_SCALE} to the factor of the cosines",
        )
    return math.exp(own), "the model, exponentiated"


def _factor(scale: float, own: float | None) -> float:
    """Return a stated scale, or refuse one that seems to be the logarithm that models store."""
    is_own = own is not None and math.isclose(scale, own, rel_tol=1e-3)
    if is_own and scale < _LIKE_A_LOGARITHM:
        raise ConfigError.one(
            _SCALE,
            f"is {scale:.4g}, which is the logarithm that the model stores",
            f"give the factor itself, {math.exp(scale):.4g}",
        )
    return scale


def _own(model: nn.Module, name: str) -> float | None:
    """Return a number that a model holds as a parameter or buffer of its own; None without."""
    tensor = {**dict(model.named_buffers(recurse=False)), **dict(model.named_parameters(recurse=False))}.get(name)
    return float(tensor.detach()) if isinstance(tensor, torch.Tensor) and tensor.numel() == 1 else None


def _check_several(vectors: NamedVectors) -> None:
    if len(vectors.names) == 1:
        raise ConfigError.one(
            _TEXTS,
            f"a softmax over the only class '{vectors.names[0]}' is always 1",
            "add a text for what else images may show, or set model.outputs: sigmoid or raw",
        )
