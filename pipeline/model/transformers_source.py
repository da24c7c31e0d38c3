"""Finds a model of the library transformers: in a folder, or on the Hugging Face hub; no code of it is ever run.

A folder holds what `save_pretrained` writes: `config.json`, weights, and `preprocessor_config.json`. A model of the hub
is fetched into the library's cache first, which makes it such a folder.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, first_line

PREFIX = "transformers/"
CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_WHERE = "model.name"
_ADAPTER = "adapter_config.json"
_PARTS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")
"""Weights in several files, which the index lists."""
_ON_HUB = re.compile(r"(?P<name>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
_ATTENTION = ("eager", "sdpa")


@dataclass(frozen=True)
class Source:
    """Where a model of transformers is.

    Attributes:
        name: what follows `transformers/` in the run file.
        folder: the folder with its files.
        is_local: whether the run file names this folder, so that only its content identifies the model.
        config: the content of its `config.json`.
    """

    name: str
    folder: Path
    is_local: bool
    config: Mapping[str, Any]

    def has(self, *names: str) -> bool:
        """Return whether the folder has one of these files."""
        return any((self.folder / name).is_file() for name in names)


def local_folder(name: str) -> Path | None:
    """Return the folder that `transformers/FOLDER` names, as an absolute path; None if there is no such folder."""
    own = name.removeprefix(PREFIX)
    folder = Path(own).expanduser() if own != name and own else None
    return folder.absolute() if folder is not None and folder.is_dir() else None


def found_source(name: str, *, weights: bool, allow_pt: bool) -> Source:
    """Find a model of transformers and read its `config.json`.

    Args:
        name: `transformers/FOLDER`, `transformers/OWNER/NAME` or `transformers/OWNER/NAME@REVISION`.
        weights: whether its own weights are needed.
        allow_pt: whether they may be a pickle.

    Raises:
        ConfigError: there is no such model, it has no config.json, or it needs code of its own, an adapter or
            quantised layers.
    """
    own, local = name.removeprefix(PREFIX), local_folder(name)
    folder = local or _from_hub(own, weights=weights, allow_pt=allow_pt)
    config = _read_json(folder / CONFIG)
    if config is None:
        raise ConfigError.one(_WHERE, f"'{name}' has no {CONFIG}", "give the folder that save_pretrained wrote")
    _refuse(name, folder, config)
    return Source(own, folder, local is not None, config)


def _refuse(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ConfigError for a model that its files alone do not make."""
    processors = [_read_json(folder / each) or {} for each in PROCESSORS]
    if any(found for each in (config, *processors) for found in _values(each, "auto_map")):
        raise ConfigError.one(
            _WHERE,
            f"'{name}' comes with Python code of its own (auto_map), which is not run",
            "take a model whose architecture transformers has, or build it in a function, package.module:function",
        )
    if (folder / _ADAPTER).is_file():
        raise ConfigError.one(
            _WHERE, f"'{name}' holds an adapter beside a model", "merge it (merge_and_unload) and save the model"
        )
    quantised = next(_values(config, "quantization_config"), None)
    if quantised:
        raise ConfigError.one(
            _WHERE,
            f"'{name}' is quantised, and quantised layers have no gradients",
            "give the float model that it was made of",
        )
    kernels = [*_values(config, "attn_implementation"), *_values(config, "_attn_implementation")]
    foreign = [kernel for kernel in kernels if kernel is not None and kernel not in _ATTENTION]
    if foreign:
        raise ConfigError.one(
            _WHERE,
            f"'{name}' asks for the attention kernel {foreign[0]!r}, which may be code of the hub",
            f"remove attn_implementation from its {CONFIG}, or set it to {' or '.join(_ATTENTION)}",
        )


def _values(fields: object, key: str) -> Iterator[object]:
    """Yield the values of a key in nested dicts."""
    if isinstance(fields, Mapping):
        for name, value in fields.items():
            if name == key:
                yield value
            yield from _values(value, key)


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read an object from a JSON file; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError.one(_WHERE, f"cannot read '{path}': {first_line(error)}") from None
    if not isinstance(fields, dict):
        raise ConfigError.one(_WHERE, f"'{path}' holds no JSON object")
    return fields


def _from_hub(own: str, *, weights: bool, allow_pt: bool) -> Path:
    """Return the folder of the cache that holds a model of the hub; fetch what it lacks."""
    parts = _ON_HUB.fullmatch(own)
    if Path(own).expanduser().is_file():
        raise ConfigError.one(_WHERE, f"'{own}' is a file", "give the folder that save_pretrained wrote")
    if parts is None or own.startswith("."):
        raise ConfigError.one(_WHERE, f"there is no folder '{own}'", "and it is no name OWNER/NAME of the hub")
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = [CONFIG, _ADAPTER, *PROCESSORS, *((*WEIGHTS, _PARTS[0]) if weights else ())]
    try:
        folder = _snapshot(parts["name"], parts["revision"], wanted, local_files_only=True)
    except LocalEntryNotFoundError:
        folder = None
    if folder is None or not _is_complete(folder, weights=weights, allow_pt=allow_pt):
        folder = _downloaded(own, parts["name"], parts["revision"], wanted)
        if weights and allow_pt and not _is_complete(folder, weights=True, allow_pt=False):
            folder = _downloaded(own, parts["name"], parts["revision"], [*PICKLES, _PARTS[1]])
    return folder


def _is_complete(folder: Path, *, weights: bool, allow_pt: bool) -> bool:
    """Return whether a folder has a configuration and, if these are needed, weights."""
    files = (*WEIGHTS, *(PICKLES if allow_pt else ()))
    return (folder / CONFIG).is_file() and (not weights or any((folder / name).is_file() for name in files))


def _downloaded(own: str, name: str, revision: str | None, wanted: list[str]) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return _snapshot(name, revision, wanted, local_files_only=False)
    except RevisionNotFoundError:
        raise ConfigError.one(_WHERE, f"the hub has no revision '{revision}' of '{name}'") from None
    except RepositoryNotFoundError:
        hint = "check its name; a private or gated one needs the token of an account: HF_TOKEN"
        raise ConfigError.one(_WHERE, f"the hub has no model '{own}', or it is private", hint) from None
    except LocalEntryNotFoundError:
        raise ConfigError.one(
            _WHERE,
            f"'{own}' is no folder, not in the cache of the hub, and the hub cannot be reached",
            "fetch it where there is a network, and give its folder",
        ) from None
    except Exception as error:  # errors of the network have another type in each version of the library
        raise ConfigError.one(_WHERE, f"cannot fetch '{own}' from the hub: {first_line(error)}") from None


def _snapshot(name: str, revision: str | None, wanted: list[str], *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=local_files_only))
