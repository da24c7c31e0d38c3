"""Builds the architecture that a run file names: of torchvision, timm, transformers or a function of the user's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from pipeline.errors import ConfigError, Mistakes, first_line, nearest
from pipeline.model.outputs import OutputKind
from pipeline.model.torchvision_tasks import arguments_of, preprocess_of, tasks_of_torchvision
from pipeline.model.transformers_models import Purpose, build_transformers
from pipeline.model.transforms import timm_preprocess, torchvision_preprocess
from pipeline.settings.functions import called, imported
from pipeline.settings.libraries import import_torchvision
from pipeline.settings.model import ModelConfig, PreprocessConfig
from pipeline.settings.preprocess import Preprocess

Built = TypeVar("Built")

_WHERE = "model.name"
_RANDOM = "random"
"""`weights: random` initialises the weights from seed 0, for tests and benchmarks."""


_ASSUMED = (
    "model.preprocess is not stated, so images become 224 x 224 pixels, normalised as for ImageNet: state it if the "
    "model was trained in another way"
)
"""What a function does not say of its model."""


@dataclass(frozen=True)
class Architecture:
    """A model that was built, and what its library says about it.

    Attributes:
        model: the model.
        preprocess: how images become its inputs.
        class_names: names of its classes by index; None if the library gives none.
        outputs: what its outputs are; None if the library does not say it.
        identity: what identifies it in a run, where that is not its name.
        is_filled: whether a weights file of the run file is loaded already.
        notes: what the user should know about it.
    """

    model: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...] | None = None
    outputs: OutputKind | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    is_filled: bool = False
    notes: tuple[str, ...] = ()


def build_architecture(config: ModelConfig, purpose: Purpose = "classification") -> Architecture:
    """Build the model, with the library's pretrained weights if requested, and return it with its preprocessing.

    Args:
        config: the section `model` of the run file.
        purpose: what a model of transformers is built for; other libraries name their models by purpose.

    Raises:
        ConfigError: the model is unknown, or cannot be built with these settings.
    """
    source, slash, name = config.name.partition("/")
    if slash and source in ("transformers", *_LIBRARIES):
        if config.arguments:
            raise ConfigError.one(
                "model.arguments", f"only a model by package.module:function takes arguments, not '{config.name}'"
            )
        return _transformers(config, purpose) if source == "transformers" else _LIBRARIES[source](name, config)
    if ":" in config.name:
        stated = isinstance(config.preprocess, PreprocessConfig)
        return Architecture(_by_function(config), Preprocess(224, 256), notes=() if stated else (_ASSUMED,))
    raise ConfigError.one(
        _WHERE,
        f"'{config.name}' is not a model name",
        "use torchvision/NAME, timm/NAME, transformers/NAME_OR_FOLDER or package.module:function",
    )


def other_architectures(name: str) -> frozenset[str]:
    """Return the names of the other models of the library that a model is from; none for a function."""
    source, _, own = name.partition("/")
    if source == "torchvision":
        import_torchvision()
        from torchvision import models  # imported here, because it is slow

        return frozenset([*models.list_models(module=models), *tasks_of_torchvision()]) - {own}
    if source == "timm":
        import timm

        return frozenset(timm.list_models()) - {own.partition(".")[0]}
    return frozenset()


def task_of_library(name: str) -> str:
    """Return the task of the library's module that a model is from; "" for classifiers and functions."""
    source, _, own = name.partition("/")
    return tasks_of_torchvision().get(own, "") if source == "torchvision" else ""


def _torchvision(name: str, config: ModelConfig) -> Architecture:
    import_torchvision()
    from torchvision import models  # imported here, because it is slow

    if name in tasks_of_torchvision():
        return _torchvision_task(name, config)
    known = models.list_models(module=models)
    if name not in known:
        hint = nearest(name, [*known, *tasks_of_torchvision()])
        raise ConfigError.one(_WHERE, f"torchvision has no classifier '{name}'", hint)
    options = models.get_model_weights(name)
    named = _named_weights(options, config.weights)
    extra: dict[str, Any] = {} if config.num_classes is None else {"num_classes": config.num_classes}
    if name in ("googlenet", "inception_v3") and named is None:
        extra["init_weights"] = True  # leaving it out causes a warning
    model = _build_library_model(lambda: models.get_model(name, weights=named, **extra))
    return Architecture(model, torchvision_preprocess((named or options.DEFAULT).transforms()))


def _torchvision_task(name: str, config: ModelConfig) -> Architecture:
    """Build a segmentation or detection model."""
    from torchvision import models

    options = models.get_model_weights(name)
    named, arguments = _named_weights(options, config.weights), arguments_of(name, config)
    model = _build_library_model(lambda: models.get_model(name, weights=named, **arguments))
    return Architecture(model, preprocess_of(model, (named or options.DEFAULT).transforms()))


def _named_weights(options: Any, weights: str | None) -> Any:  # noqa: ANN401 - torchvision's enums are untyped
    if weights is None or weights == _RANDOM or "." in weights:
        return None
    known = ["DEFAULT", *(entry.name for entry in options)]
    if weights not in known:
        raise ConfigError.one("model.weights", f"the model has no weights '{weights}'", nearest(weights, known))
    return options.DEFAULT if weights == "DEFAULT" else options[weights]


def _timm(name: str, config: ModelConfig) -> Architecture:
    try:
        import timm
        from timm.models import get_arch_pretrained_cfgs
    except ImportError:
        raise ConfigError.one(_WHERE, "timm is not installed", "run pip install 'camatlas[timm]'") from None
    if name.partition(".")[0] not in timm.list_models():
        raise ConfigError.one(_WHERE, f"timm has no model '{name}'", nearest(name, timm.list_models()))
    weights = config.weights
    if weights not in (None, "DEFAULT", _RANDOM) and "." not in str(weights):
        raise ConfigError.one(
            "model.weights", f"timm has no weights '{weights}'", "use DEFAULT, random or a .safetensors file"
        )
    tagged = get_arch_pretrained_cfgs(name.partition(".")[0])
    if "." in name and name not in tagged:
        raise ConfigError.one(_WHERE, f"timm has no weights '{name}'", nearest(name, tagged))
    settings = tagged.get(name) or next(iter(tagged.values()), None)
    if settings is not None:
        _check_classifier(settings.num_classes, config)
    extra: dict[str, Any] = {} if config.num_classes is None else {"num_classes": config.num_classes}
    model = _build_library_model(lambda: timm.create_model(name, pretrained=weights == "DEFAULT", **extra))
    return Architecture(model, timm_preprocess(model))


def _transformers(config: ModelConfig, purpose: Purpose) -> Architecture:
    """Build a model of transformers."""
    found = build_transformers(config, purpose)
    return Architecture(
        found.model, found.preprocess, found.class_names, found.outputs, found.identity, found.is_filled, found.notes
    )


_LIBRARIES = {"torchvision": _torchvision, "timm": _timm}


def _check_classifier(pretrained: int, config: ModelConfig) -> None:
    """Raise ConfigError for a model of timm without a classifier, or whose pretrained classifier would be left out.

    Args:
        pretrained: number of classes of the pretrained weights.
        config: the model's settings.
    """
    classes = pretrained if config.num_classes is None else config.num_classes
    if not classes:
        raise ConfigError.one(
            _WHERE,
            f"'{config.name}' is a feature extractor: it has no classifier, and its outputs are no classes",
            "choose a model with a classifier, or set model.num_classes and give weights that include one",
        )
    if config.weights == "DEFAULT" and classes != pretrained:
        raise ConfigError.one(
            "model.num_classes",
            f"the pretrained weights of '{config.name}' have {pretrained or 'no'} classes, so a "
            f"classifier with {classes} would be random",
            "give the weights of the fine-tuned model, as a .safetensors file",
        )


def _by_function(config: ModelConfig) -> nn.Module:
    """Build the model with the user's function; keys that only models of libraries know are refused."""
    name, mistakes = config.name, Mistakes()
    if config.num_classes is not None:
        with mistakes.collecting():
            raise ConfigError.one(
                "model.num_classes", f"has no effect on '{name}'", "give it to the function, with model.arguments"
            )
    if config.weights not in (None, "DEFAULT") and "." not in config.weights:
        with mistakes.collecting():
            raise ConfigError.one(
                "model.weights",
                f"'{config.weights}' has no effect: '{name}' knows no weights by name",
                "give a file, or leave it out for the weights that the function loads",
            )
    with mistakes.collecting():
        function = imported(_WHERE, name)
        if isinstance(function, nn.Module):
            raise ConfigError.one(_WHERE, f"'{name}' is a model", "name a function that returns it")
        built = _build_seeded(lambda: called(_WHERE, name, function, config.arguments))
        if not isinstance(built, nn.Module):
            raise _no_module(name, built)
    mistakes.raise_if_any()
    return built


def _no_module(name: str, built: object) -> ConfigError:
    """Say what a function returned instead of a module."""
    if isinstance(built, torch.export.ExportedProgram):
        return ConfigError.one(
            _WHERE,
            f"'{name}' returned an exported program, whose layers cannot be observed",
            "return the module that was exported",
        )
    hint = "return the model itself"
    if isinstance(built, type) and issubclass(built, nn.Module):
        hint = f"return an instance: {built.__name__}(...)"
    elif isinstance(built, (tuple, list)) and any(isinstance(part, nn.Module) for part in built):
        hint = "return the model alone, without what comes with it"
    elif isinstance(built, dict):
        hint = "return a model, and give the file of a state dict as model.weights"
    return ConfigError.one(_WHERE, f"'{name}' returned {type(built).__name__}, not a torch module", hint)


def _build_seeded(build: Callable[[], Built]) -> Built:
    """Build a model with random initialisation from seed 0; the caller's random state is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build()


def _build_library_model(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a model of a library, which may download its pretrained weights."""
    try:
        return _build_seeded(build)
    except Exception as error:  # downloads and constructors raise many types
        raise ConfigError.one(
            "model.weights",
            f"cannot build the model with these weights: {first_line(error)}",
            "use a .safetensors file",
        ) from None
