"""Loads weights from files without running code: safetensors, and `.pt` files only if the user allows them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.errors import ConfigError, first_line

_WHERE = "model.weights"
_CONVERT = (
    "if you trust the file, convert it once: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"
)


def load_weights(model: nn.Module, path: str, *, allow_pt: bool) -> None:
    """Load a weights file into a model; its names and shapes must be exactly those of the model.

    Half-precision weights are converted to the model's precision.

    Raises:
        ConfigError: the file is missing, is not safetensors (or is `.pt` without `allow_pt`), or does not fit.
    """
    state = _read(path, allow_pt=allow_pt)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ConfigError.one(_WHERE, f"'{path}' does not fit the model: {_summary(error)}") from None


def digest(model: nn.Module) -> str:
    """Return the sha256 of a model's parameters and buffers (names, dtypes, shapes, bytes), in hexadecimal."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _read(path: str, *, allow_pt: bool) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise ConfigError.one(
            _WHERE, f"there is no file '{path}'", "give a name of torchvision weights or a .safetensors file"
        )
    if path.endswith(".safetensors"):
        try:
            state = load_file(path)
            _check_names(path)
            return state
        except (SafetensorError, OSError, ValueError) as error:
            message = f"'{path}' is not a valid safetensors file: {first_line(error)}"
            raise ConfigError.one(_WHERE, message, f"if it is a pickle: {_CONVERT}") from None
    if path.endswith((".pt", ".pth")):
        return _read_pt(path, allow_pt=allow_pt)
    raise ConfigError.one(_WHERE, f"'{path}' is not a .safetensors file", _CONVERT)


def _check_names(path: str) -> None:
    """Raise ValueError if the header has a key twice, because readers differ in which of the two they use."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            raise ValueError("its header has a key twice")
        return entries

    with Path(path).open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=unique)


def _read_pt(path: str, *, allow_pt: bool) -> dict[str, Tensor]:
    if not allow_pt:
        raise ConfigError.one(
            _WHERE, f"'{path}' is a pickle, which can run code", f"{_CONVERT}. Or set model.allow_pt: true"
        )
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler may raise nearly any type
        raise ConfigError.one(
            _WHERE, f"'{path}' is damaged or contains more than tensors: {first_line(error)}", _CONVERT
        ) from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ConfigError.one(_WHERE, f"'{path}' is not a state dict of tensors", _CONVERT)
    return state


def _summary(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[1:4])[:400] + ("; ..." if len(lines) > 4 else "")
