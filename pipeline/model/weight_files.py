"""Reads weights files without running code: safetensors, and pickles of plain values only if the user allows them."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import ConfigError, first_line

WHERE = "model.weights"
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".tar")
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
"""Classes that only hold values; training scripts save their options in one."""
_CLASS = re.compile(r"GLOBAL ([\w.]+)")
_REASON = re.compile(r"WeightsUnpickler error: *(.+)")
_CONVERT = (
    "if you trust the file, convert it once: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"
)
_CONVERT_CLASSES = (
    "if you trust the file, convert it once where these classes can be imported: load it with "
    "torch.load(FILE, weights_only=False), and save its state dict with "
    "safetensors.torch.save_file(state_dict, 'weights.safetensors')"
)


def read_weights(path: str, *, allow_pt: bool) -> object:
    """Read a weights file: a dict of tensors, or for a pickle anything made of plain values and tensors.

    Raises:
        ConfigError: the file is missing, damaged, not allowed, or holds objects of other classes.
    """
    if not Path(path).is_file():
        raise ConfigError.one(
            WHERE, f"there is no file '{path}'", "give a name of torchvision weights or a .safetensors file"
        )
    if path.endswith(".safetensors"):
        return read_safetensors(path)
    if path.endswith(PICKLES):
        return _read_pickle(path, allow_pt=allow_pt)
    raise ConfigError.one(WHERE, f"'{path}' is not a .safetensors file", _CONVERT)


def read_safetensors(path: str, where: str = WHERE) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: the file.
        where: the key of the run file that names it.

    Raises:
        ConfigError: the file is not valid.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
        _check_names(path)
    except (SafetensorError, OSError, ValueError) as error:
        message = f"'{path}' is not a valid safetensors file: {first_line(error)}"
        raise ConfigError.one(where, message, f"if it is a pickle: {_CONVERT}") from None
    return state


def _check_names(path: str) -> None:
    """Raise ValueError if the header has a key twice, because readers differ in which of the two they use."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ValueError("its header has a key twice")
        return entries

    with Path(path).open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=unique)


def _read_pickle(path: str, *, allow_pt: bool) -> object:
    if not allow_pt:
        raise ConfigError.one(
            WHERE, f"'{path}' is a pickle, which can run code", f"{_CONVERT}. Or set model.allow_pt: true"
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler may raise nearly any type
        raise _unreadable(path, error) from None
    return content


def _unreadable(path: str, error: Exception) -> ConfigError:
    """Say why a pickle cannot be read without running code."""
    if "TorchScript" in str(error):
        return ConfigError.one(
            WHERE,
            f"'{path}' is a TorchScript archive, which holds code",
            "save the state dict of the model that it was made from: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
        )
    if held := _CLASS.search(str(error)):
        what = f"'{path}' holds objects of the class {held[1]}, and building them could run code"
        return ConfigError.one(WHERE, what, _CONVERT_CLASSES)
    reason = _REASON.search(str(error))
    detail = reason[1].strip() if reason else first_line(error)
    return ConfigError.one(WHERE, f"'{path}' is damaged or is no file of torch.save: {detail}", _CONVERT)
