"""Builds the model that a run file describes: architecture, weights, preprocessing, target layer and stages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from pipeline.errors import ConfigError, LayerError, Mistakes, first_line
from pipeline.model.architectures import Architecture, build_architecture, other_architectures, task_of_library
from pipeline.model.batching import is_out_of_memory
from pipeline.model.engine import check_parameters
from pipeline.model.kinds import check_kind
from pipeline.model.recording import for_evaluation
from pipeline.model.tasks import StatedTask, Task, stated_task
from pipeline.model.transformers_models import Purpose
from pipeline.model.trial import LoadedModel, tried
from pipeline.model.weight_files import read_weights
from pipeline.model.weights import digest, load_weights
from pipeline.model.wrappers import unwrap_parts, unwrapped
from pipeline.settings.model import ModelConfig, PreprocessConfig
from pipeline.settings.preprocess import Preprocess

__all__ = ["LoadedModel", "load_model"]

_PURPOSES: dict[str, Purpose] = {"segmentation": "segmentation", "similarity": "embedding", "zero_shot": "embedding"}
"""What a model of transformers is built for, by task."""


def load_model(config: ModelConfig, class_names: Sequence[str] = ()) -> LoadedModel:
    """Build a model, load its weights, and check it with a few forward passes.

    Args:
        config: the section `model` of the run file.
        class_names: names of the run's classes, which order the vectors of a file of embeddings; empty if not known.

    Raises:
        ConfigError: the name, task, preprocessing, weights, their sha256, a layer or the logits are unsuitable, or the
            model raised an exception. Problems with the weights and with the layers are reported together.
    """
    mistakes = Mistakes()
    stated = StatedTask(config, "")
    with mistakes.collecting():
        stated = stated_task(config, class_names, task_of_library(config.name))
    built, task = _built(config, stated, mistakes)
    model, preprocess = built.model, _preprocess_for(config, built.preprocess)
    weights_digest, notes = "", built.notes
    with mistakes.collecting():
        notes += () if built.is_filled else _fill(model, config)
        weights_digest = _checked_digest(model, config)
    model.eval()  # it may prepare the weights
    for_evaluation(model)  # it may have left parts in training mode
    if built.outputs is not None and config.outputs == "auto":
        config = config.model_copy(update={"outputs": built.outputs})
    with mistakes.collecting(), _lack_of_memory_told(preprocess):
        loaded = tried(model, config, preprocess, weights_digest, task)
    mistakes.raise_if_any()
    names = built.class_names if built.class_names and len(built.class_names) == loaded.classes else None
    return replace(loaded, notes=notes + loaded.notes, class_names=stated.class_names or names, identity=built.identity)


def _built(config: ModelConfig, stated: StatedTask, mistakes: Mistakes) -> tuple[Architecture, Task | None]:
    """Build the architecture without wrappers; if that fails, check what can be checked without it, and raise."""
    with mistakes.collecting():
        built = build_architecture(config, _PURPOSES.get(stated.name, "classification"))
        model = unwrapped(built.model)
        task, notes = stated.of(model) if not mistakes.found else (None, ())
        if not mistakes.found:
            check_kind(model, task)
        _check_precision(model)
        unwrap_parts(model)
        mistakes.raise_if_any()
        return replace(built, model=model, notes=built.notes + stated.notes + notes), task
    with mistakes.collecting():
        if _is_file(config.weights):
            read_weights(str(config.weights), allow_pt=config.allow_pt)
    raise ConfigError(dict.fromkeys(mistakes.found))


def _check_precision(model: nn.Module) -> None:
    try:
        check_parameters(model)
    except LayerError as error:
        raise ConfigError.one("model.name", str(error)) from None


def _fill(model: nn.Module, config: ModelConfig) -> tuple[str, ...]:
    """Load the weights of the run file's weights file, if it names one, and return notes for the user."""
    if _is_file(config.weights):
        return load_weights(
            model,
            str(config.weights),
            allow_pt=config.allow_pt,
            key=config.weights_key,
            other_architectures=other_architectures(config.name),
        )
    if config.weights_key is not None:
        raise ConfigError.one(
            "model.weights_key", "has no effect without a weights file", "set model.weights, or remove it"
        )
    return ()


@contextmanager
def _lack_of_memory_told(preprocess: Preprocess) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        height, width = preprocess.size
        raise ConfigError.one(
            "model.name",
            f"memory ran out on a few images of {height} x {width}: {first_line(error)}",
            "set a smaller model.preprocess.crop, or use a machine with more memory",
        ) from error


def _is_file(weights: str | None) -> bool:
    return weights is not None and "." in weights


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
        return chosen.preprocess()
    if chosen == "squash":
        return replace(default, resize=None)
    return default
