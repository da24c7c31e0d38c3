"""Builds a model of transformers with its weights; refuses weights that leave a part of it random.

The library itself only warns of that. It also knows the names that its earlier versions gave to tensors, so that it
reads weights files first.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, first_line
from pipeline.model.checkpoints import nestings
from pipeline.model.transformers_source import CONFIG, PICKLES, PREFIX, WEIGHTS, Source
from pipeline.model.weight_files import read_weights
from pipeline.settings.model import ModelConfig

_WHERE = "model.weights"
_NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
_MISTAKES = ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs")
"""What the library says of weights that do not fit."""
_FILES = "model*.safetensors"
_OF_COSINES = ("logit_scale", "logit_bias")
_SHOWN = 3


def check_weights(config: ModelConfig) -> None:
    """Raise ConfigError for a name of weights that transformers does not have."""
    if config.weights not in (None, "DEFAULT", "random") and "." not in str(config.weights):
        raise ConfigError.one(
            _WHERE, f"transformers has no weights '{config.weights}'", "use DEFAULT, random or a .safetensors file"
        )


def built(
    builder: Any,  # noqa: ANN401 - the library is untyped
    settings: Any,  # noqa: ANN401
    source: Source,
    config: ModelConfig,
) -> tuple[nn.Module, bool, Mapping[str, Any]]:
    """Build a model in float32, with random weights from seed 0 unless the run file wants others.

    Args:
        builder: the class of the model.
        settings: its configuration.
        source: where its own weights are.
        config: the section `model` of the run file.

    Returns:
        The model, whether it has its weights already, and what the library says of them.

    Raises:
        ConfigError: the weights are missing, a pickle that is not allowed, quantised, or do not fit the model.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if config.weights == "DEFAULT":
                model, info = _with_own_weights(builder, settings, source, config)
                return model, True, info
            if config.weights not in (None, "random") and config.weights_key is None:
                filled = _with_file(builder, settings, str(config.weights), allow_pt=config.allow_pt)
                if filled is not None:
                    return filled, True, {}
            return builder(settings).float(), False, {}
    except ConfigError:
        raise
    except Exception as error:  # constructors and readers of weights raise many types
        raise ConfigError.one(
            _WHERE, f"cannot build '{PREFIX}{source.name}' with these weights: {first_line(error)}"
        ) from None


_TRAINED = (
    "give a model that was trained for it, not its backbone alone; a segmenter needs model.task: segmentation, and an "
    "encoder model.text_embeddings"
)


def check_complete(name: str, info: Mapping[str, Any], purpose: str) -> None:
    """Raise ConfigError if the library left a part of a model with random numbers."""
    missing = sorted(info["missing_keys"])
    different = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    parts = {"missing": missing, "of another shape": different, "errors": [*map(str, info["error_msgs"])]}
    found = "; ".join(f"{what}: {listed(keys)}" for what, keys in parts.items() if keys)
    if found:
        raise ConfigError.one(
            _WHERE,
            f"the weights of '{name}' are not those of a model for {purpose}, a part of which would be random: {found}",
            _TRAINED if missing else f"correct its {CONFIG}",
        )


def listed(names: Collection[str]) -> str:
    """Write the first of many names."""
    first = [name for name, _ in zip(names, range(_SHOWN), strict=False)]
    return ", ".join(first) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _with_own_weights(
    builder: Any,  # noqa: ANN401 - the library is untyped
    settings: Any,  # noqa: ANN401
    source: Source,
    config: ModelConfig,
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Load a model with the weights beside its configuration."""
    name, is_safe = f"{PREFIX}{source.name}", source.has(*WEIGHTS)
    if not is_safe and not source.has(*PICKLES):
        raise ConfigError.one(_WHERE, f"'{name}' has no {WEIGHTS[0]}", "save the model with save_pretrained")
    if not is_safe and not config.allow_pt:
        raise ConfigError.one(
            _WHERE,
            f"'{name}' has its weights as a pickle only ({PICKLES[0]}), which can run code",
            f"convert it to {WEIGHTS[0]}, or set model.allow_pt: true, which reads plain tensors alone",
        )
    if is_safe:
        _refuse_quantised(source)
    loaded: tuple[nn.Module, Mapping[str, Any]] = builder.from_pretrained(
        str(source.folder),
        config=settings,
        local_files_only=True,
        use_safetensors=is_safe,
        weights_only=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # they are refused by `check_complete`
        output_loading_info=True,
    )
    return loaded


def numbers_of(source: Source) -> dict[str, Tensor]:
    """Read the scale and the bias of the cosines in a model of images and texts, as far as it has them."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for path in sorted(source.folder.glob(_FILES)):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name).float() for name in _OF_COSINES if name in file.keys()}  # noqa: SIM118
    return found


def _refuse_quantised(source: Source) -> None:
    """Raise ConfigError for tensors of 8 bits, which the library would take for numbers as they are."""
    from safetensors import safe_open

    for path in sorted(source.folder.glob(_FILES)):
        with safe_open(path, "pt") as file:
            names = file.keys()
            wrong = [name for name in names if "8" in str(file.get_slice(name).get_dtype())]
        if wrong:
            raise ConfigError.one(
                _WHERE,
                f"'{path.name}' of '{PREFIX}{source.name}' holds quantised weights of 8 bits ({listed(wrong)})",
                "give the float model that they were made of",
            )


def _with_file(builder: Any, settings: Any, path: str, *, allow_pt: bool) -> nn.Module | None:  # noqa: ANN401
    """Load a weights file by the library; None if a name or a shape does not fit, so that others must be tried."""
    for _, state in nestings(read_weights(path, allow_pt=allow_pt)):
        if not all(_is_plain(tensor) for tensor in state.values()):
            continue
        model, info = builder.from_pretrained(
            None,
            config=settings,
            state_dict=dict(state),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        if not any(info[mistakes] for mistakes in _MISTAKES):
            return model  # type: ignore[no-any-return]
    return None


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype in _NUMBERS and not tensor.is_quantized and not tensor.is_meta
