"""Reads named embeddings from a safetensors file, and puts them into the order of the classes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.errors import ConfigError, nearest
from pipeline.model.outputs import described
from pipeline.model.weight_files import read_safetensors

SCALARS = ("logit_scale", "logit_bias")
"""Names of numbers that a file may hold beside the vectors."""
_SHOWN = 5
_SAVE = "save them with safetensors.torch.save_file({NAME: vector, ...}, 'embeddings.safetensors')"


@dataclass(frozen=True)
class NamedVectors:
    """The content of a file of embeddings.

    Attributes:
        names: names of the vectors, in the order of the outputs.
        vectors_ND: the vectors.
        scalars: the numbers `logit_scale` and `logit_bias`, as far as they are given.
        notes: what the user should know, one sentence each.
    """

    names: tuple[str, ...]
    vectors_ND: Tensor
    scalars: dict[str, float]
    notes: tuple[str, ...]


def read_vectors(where: str, path: str, class_names: Sequence[str]) -> NamedVectors:
    """Read a file of named vectors of one width.

    Their order is that of `class_names`, else that of the JSON list `names` in the file's metadata, else alphabetical.

    Args:
        where: the key of the run file that names the file.
        path: the file.
        class_names: names of the run's classes (`data.classes`); empty if they are not known.

    Raises:
        ConfigError: the file is missing, no safetensors file, or holds something else, or a class has no vector.
    """
    if not Path(path).is_file():
        raise ConfigError.one(where, f"there is no file '{path}'", _SAVE)
    if not path.endswith(".safetensors"):
        raise ConfigError.one(where, f"'{path}' is not a .safetensors file, and other files can run code", _SAVE)
    tensors = read_safetensors(path, where)
    scalars = {name: _scalar(where, name, tensors.pop(name)) for name in SCALARS if name in tensors}
    vectors = {name: _vector(where, name, tensor) for name, tensor in tensors.items()}
    if not vectors:
        raise ConfigError.one(where, f"'{path}' holds no vectors", _SAVE)
    _check_widths(where, vectors)
    names, notes = _ordered(where, path, sorted(vectors), class_names)
    return NamedVectors(names, torch.stack([vectors[name] for name in names]), scalars, notes)


def _scalar(where: str, name: str, tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise ConfigError.one(where, f"'{name}' must be one number, not {described(tensor)}")
    return float(tensor)


def _vector(where: str, name: str, tensor: Tensor) -> Tensor:
    vector = tensor.squeeze(0) if tensor.ndim == 2 and len(tensor) == 1 else tensor
    if vector.ndim != 1 or not vector.numel() or not vector.is_floating_point():
        what = f"'{name}' must be a vector (D,) of floats, not {described(tensor)} {tensor.dtype}"
        raise ConfigError.one(where, what, f"one vector for each class; {_SAVE}")
    return vector.float()


def _check_widths(where: str, vectors: dict[str, Tensor]) -> None:
    widths = {len(vector): name for name, vector in vectors.items()}
    if len(widths) > 1:
        (one, first), (other, second), *_ = widths.items()
        raise ConfigError.one(
            where, f"the vectors have different widths: '{first}' has {one} numbers, '{second}' {other}", _SAVE
        )


def _ordered(
    where: str, path: str, known: Sequence[str], class_names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names in the order of the outputs, with notes."""
    stated = class_names or _stated_order(where, path, known)
    if not stated:
        first = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
        return tuple(known), (f"the classes of {path} are in alphabetical order: {first} (data.classes sets another)",)
    missing = [name for name in stated if name not in set(known)]
    if missing:
        more = f" and {len(missing) - 1} more classes" if len(missing) > 1 else ""
        raise ConfigError.one(
            where, f"'{path}' has no vector for '{missing[0]}'{more} of data.classes", nearest(missing[0], known)
        )
    left_out = [name for name in known if name not in set(stated)]
    named = ", ".join(left_out[:_SHOWN]) + (", ..." if len(left_out) > _SHOWN else "")
    notes = (f"{len(left_out)} vectors of {path} are left out, which data.classes does not have: {named}",)
    return tuple(stated), notes if left_out else ()


def _stated_order(where: str, path: str, known: Sequence[str]) -> list[str]:
    """Return the list `names` of the file's metadata; empty without one."""
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("names")
        names = [] if text is None else json.loads(text)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ConfigError.one(where, f"the metadata of '{path}' cannot be read: {error}") from None
    if text is not None and (not isinstance(names, list) or not all(isinstance(name, str) for name in names)):
        raise ConfigError.one(where, f"`names` in the metadata of '{path}' must be a JSON list of names")
    if text is not None and sorted(names) != sorted(known):
        differing = sorted(set(names) ^ set(known)) or ["a repeated name"]
        raise ConfigError.one(
            where,
            f"`names` in the metadata of '{path}' and its vectors differ: '{differing[0]}'",
            "list each name once",
        )
    return names
