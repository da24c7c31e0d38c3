"""Builds models of the library transformers: classifiers, and on request segmenters and encoders of images.

Legend: B images, N classes, D numbers of an embedding.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from logging import CRITICAL
from typing import Any, Literal

from torch import Tensor, nn

from pipeline.errors import ConfigError, first_line, nearest
from pipeline.model.outputs import OutputKind
from pipeline.model.transformers_pixels import preprocess_of
from pipeline.model.transformers_source import CONFIG, PREFIX, Source, found_source
from pipeline.model.transformers_weights import built, check_complete, check_weights, listed, numbers_of
from pipeline.settings.model import ModelConfig, PreprocessConfig
from pipeline.settings.preprocess import Preprocess

Purpose = Literal["classification", "segmentation", "embedding"]

_WHERE = "model.name"
_MAPPINGS = {
    "classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "segmentation": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING",
    "embedding": "MODEL_MAPPING",
}
"""The library's lists of its models, by the type of their configuration."""
_DOING = {
    "classification": "the classification of images",
    "segmentation": "the segmentation of images",
    "embedding": "embeddings of images",
}
_TOWERS = {
    "clip": ("CLIPVisionModelWithProjection", "image_embeds"),
    "clip_vision_model": ("CLIPVisionModelWithProjection", "image_embeds"),
    "siglip": ("SiglipVisionModel", "pooler_output"),
    "siglip_vision_model": ("SiglipVisionModel", "pooler_output"),
}
"""The part of a model of images and texts that reads images, and where it returns embeddings."""
_PAIRS = ("clip", "siglip")
"""Types of models of images and texts, whose configuration holds one for each."""
_OUTPUTS: dict[str, OutputKind] = {"multi_label_classification": "sigmoid", "regression": "raw"}
_PLACEHOLDER = re.compile(r"LABEL_\d+")
_NOT_IDENTITY = {
    "_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype", "transformers_version",
}  # fmt: skip
"""Entries of a configuration on which no logit depends."""


@dataclass(frozen=True)
class TransformersModel:
    """A model of transformers, with what its files say about it.

    Attributes:
        model: the model, in float32.
        preprocess: how images become its inputs.
        class_names: names of its outputs, in their order; None if it has none, or only placeholders.
        outputs: what its configuration says of its outputs; None if it says nothing.
        identity: what identifies the model in a run, besides its weights.
        is_filled: whether it has its weights already.
        notes: what the user should know about it.
    """

    model: nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...] | None
    outputs: OutputKind | None
    identity: Mapping[str, str]
    is_filled: bool
    notes: tuple[str, ...] = ()


def build_transformers(config: ModelConfig, purpose: Purpose = "classification") -> TransformersModel:
    """Build the model that `transformers/FOLDER` or `transformers/OWNER/NAME@REVISION` names.

    Args:
        config: the section `model` of the run file.
        purpose: a classifier; a segmenter; or an encoder, whose outputs (B, D) are embeddings of images.

    Raises:
        ConfigError: the library or the model is missing, the model is none for this purpose or not complete, or the
            settings contradict it.
    """
    try:
        import transformers  # noqa: F401 - optional, and slow to import
    except ImportError:
        raise ConfigError.one(
            _WHERE, "transformers is not installed", "run pip install 'camatlas[transformers]'"
        ) from None
    check_weights(config)
    with _quiet():
        source = found_source(config.name, weights=config.weights == "DEFAULT", allow_pt=config.allow_pt)
        settings = _settings(source, purpose)
        names = _set_classes(settings, config, source) if purpose == "classification" else _names(settings)
        builder = _builder(settings, purpose)
        _check_input(source, builder)
        model, is_filled, info = built(builder, _own(settings, purpose), source, config)
        notes = _notes(source, model, info, purpose)
        custom = isinstance(config.preprocess, PreprocessConfig)
        preprocess = Preprocess(224, 256) if custom else preprocess_of(source, config.name)
    outputs = None if purpose != "classification" else _OUTPUTS.get(str(settings.problem_type))
    if outputs is not None and config.outputs == "auto":
        notes += (f"outputs: {outputs}, because the {CONFIG} of the model says {settings.problem_type}",)
    numbers = numbers_of(source) if is_filled and settings.model_type in _PAIRS else {}
    whole = model if purpose != "embedding" else Encoder(model, _tower(settings)[1], numbers)
    names = None if purpose == "embedding" else names
    return TransformersModel(whole, preprocess, names, outputs, _identity(source, model), is_filled, notes)


class Encoder(nn.Module):
    """Returns the embeddings of images, (B, D), from what a model of transformers returns.

    Args:
        tower: the model.
        key: the name of the embeddings in its output.
        numbers: what a model of images and texts multiplies cosines by, and adds to them, under its own names.
    """

    def __init__(self, tower: nn.Module, key: str, numbers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tower, self.key = tower, key
        for name, number in numbers.items():
            self.register_buffer(name, number)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return one embedding per image."""
        embeddings = getattr(self.tower(pixel_values), self.key, None)
        if not isinstance(embeddings, Tensor):
            raise TypeError(f"{type(self.tower).__name__} returns no {self.key}, the embeddings of whole images")
        return embeddings


def _settings(source: Source, purpose: Purpose) -> Any:  # noqa: ANN401 - the library is untyped
    """Read the configuration of a model, and check that the library has such a model."""
    import transformers

    name, kind = f"{PREFIX}{source.name}", source.config.get("model_type")
    if kind == "timm_wrapper" or (kind is None and "pretrained_cfg" in source.config):
        raise ConfigError.one(_WHERE, f"'{name}' is a model of timm", "give its name as timm/NAME")
    if kind not in transformers.CONFIG_MAPPING:
        hint = nearest(str(kind), [*transformers.CONFIG_MAPPING]) if kind else f"its {CONFIG} lacks model_type"
        raise ConfigError.one(_WHERE, f"transformers does not know the architecture '{kind}' of '{name}'", hint)
    try:
        settings = transformers.AutoConfig.from_pretrained(
            str(source.folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # each configuration checks its own entries
        raise ConfigError.one(_WHERE, f"the {CONFIG} of '{name}' is not valid: {first_line(error)}") from None
    if type(settings) not in getattr(transformers, _MAPPINGS[purpose]):
        raise ConfigError.one(
            _WHERE,
            f"'{name}' is a model of the type {kind}, which has none for {_DOING[purpose]} in transformers",
            "give another model; an encoder needs model.text_embeddings or model.reference_embeddings",
        )
    return settings


def _set_classes(settings: Any, config: ModelConfig, source: Source) -> tuple[str, ...] | None:  # noqa: ANN401
    """Set the number of classes, if it may be chosen, and return the names of the classes."""
    wanted, own, name = config.num_classes, int(settings.num_labels), f"{PREFIX}{source.name}"
    if not (wanted or own):
        raise ConfigError.one(
            _WHERE,
            f"'{name}' is a feature extractor: it has no classifier, and its outputs are no classes",
            "choose a model with a classifier, or set model.num_classes and give weights that include one",
        )
    if wanted in (None, own):
        return _names(settings)
    if config.weights == "DEFAULT":
        raise ConfigError.one(
            "model.num_classes",
            f"the weights of '{name}' have {own or 'no'} classes, so a classifier with {wanted} would be random",
            "leave it out, or give the weights of the fine-tuned model, as a .safetensors file",
        )
    settings.num_labels = wanted
    return None


def _names(settings: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - the library is untyped
    """Return the names of the classes; None for missing ones and the library's placeholders."""
    names = {int(index): str(name).strip() for index, name in (settings.id2label or {}).items()}
    if sorted(names) != list(range(int(settings.num_labels))) or not all(names.values()):
        return None
    return None if all(map(_PLACEHOLDER.fullmatch, names.values())) else tuple(names[index] for index in sorted(names))


def _builder(settings: Any, purpose: Purpose) -> Any:  # noqa: ANN401 - the library is untyped
    """Return the class of a model: the one that its configuration states, of those that serve."""
    import transformers

    if purpose == "embedding" and settings.model_type in _TOWERS:
        return getattr(transformers, _tower(settings)[0])
    found = getattr(transformers, _MAPPINGS[purpose])[type(settings)]
    classes = found if isinstance(found, (tuple, list)) else (found,)
    return next((each for each in classes if each.__name__ in (settings.architectures or ())), classes[0])


def _check_input(source: Source, builder: Any) -> None:  # noqa: ANN401 - the library is untyped
    """Raise ConfigError for a model of texts, sounds or videos."""
    if builder.main_input_name != "pixel_values" or "video" in builder.__name__.lower():
        raise ConfigError.one(
            _WHERE, f"'{PREFIX}{source.name}' ({builder.__name__}) does not take images", "give a model of images"
        )


def _own(settings: Any, purpose: Purpose) -> Any:  # noqa: ANN401 - the library is untyped
    """Return the configuration of the part of a model that is built."""
    if purpose != "embedding" or settings.model_type not in _PAIRS:
        return settings
    own = settings.vision_config
    if settings.model_type == "clip":
        own.projection_dim = settings.projection_dim  # that of the whole model, which its parts do not know
    return own


def _tower(settings: Any) -> tuple[str, str]:  # noqa: ANN401 - the library is untyped
    return _TOWERS.get(settings.model_type, ("", "pooler_output"))


def _notes(source: Source, model: nn.Module, info: Mapping[str, Any], purpose: Purpose) -> tuple[str, ...]:
    """Check that all weights were found, and say which were not needed; an encoder never needs those of texts."""
    name = f"{PREFIX}{source.name}"
    if not info:
        return ()
    check_complete(name, info, _DOING[purpose])
    left = sorted(info["unexpected_keys"])
    if not left or purpose == "embedding":
        return ()
    return (f"{len(left)} tensors of '{name}' are of no part of {type(model).__name__}: {listed(left)}",)


def _identity(source: Source, model: nn.Module) -> dict[str, str]:
    """Return what identifies a model besides its weights: not the path of a folder, but its configuration."""
    entries = {key: value for key, value in source.config.items() if key not in _NOT_IDENTITY}
    digest = sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:16]
    return {"name": f"{PREFIX}{type(model).__name__ if source.is_local else source.name}", "config": digest}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log, the progress bars and the warnings of the library; what matters in them is said by us."""
    import huggingface_hub.utils
    import transformers.utils.logging

    log: Any = transformers.utils.logging
    hub: Any = huggingface_hub.utils
    level, bars, hub_bars = log.get_verbosity(), log.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    log.set_verbosity(CRITICAL)
    log.disable_progress_bar()
    hub.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
        if hub_bars:
            hub.enable_progress_bars()
