"""Copies between the host and the device for which the host waits as little as possible."""

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor

Name = TypeVar("Name", bound=Hashable)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on a device; the host does not wait for the copy, as pinned memory lets it go on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def host_copies(tensors: Mapping[Name, Tensor]) -> dict[Name, Tensor]:
    """Return tensors of one dtype on the host, by the same names; they are copied together, so that it waits once."""
    if not tensors or all(tensor.device.type == "cpu" for tensor in tensors.values()):
        return dict(tensors)
    together = torch.cat([tensor.flatten() for tensor in tensors.values()]).cpu()
    parts = torch.split(together, [tensor.numel() for tensor in tensors.values()])
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def host_arrays(tensors: Mapping[Name, Tensor]) -> dict[Name, npt.NDArray[Any]]:
    """Return tensors of one dtype as arrays on the host that share no memory with them, as `host_copies`."""
    own = {name for name, tensor in tensors.items() if tensor.device.type != "cpu"}
    arrays = {name: copy.detach().numpy() for name, copy in host_copies(tensors).items()}
    return {name: array if name in own else array.copy("K") for name, array in arrays.items()}
