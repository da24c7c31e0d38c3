"""Tells a failed device from an error of a model: after such a failure, no process that used the device can go on."""

import re

import torch

from pipeline.model.batching import causes, is_out_of_memory

_FAILED = re.compile(
    r"device-side assert|illegal memory access|illegal instruction|misaligned address|invalid program counter"
    r"|unspecified launch failure|launch (timed out|failure)|hardware stack error|uncorrectable ECC|contained error"
    r"|GPU is lost|fallen off the bus|hipErrorIllegalAddress|HSA_STATUS_ERROR|memory access fault"
    r"|(CUDA|HIP) error: an? ",  # the runtime's own sentences, such as "an external error"
    re.IGNORECASE,
)
"""The words of libraries that raise a RuntimeError of their own, such as Triton, NCCL and drivers."""


def is_device_failure(error: BaseException) -> bool:
    """Tell whether an error means that the device failed: a device-side assert, for example, or a lost GPU."""
    return not is_out_of_memory(error) and any(
        isinstance(each, torch.AcceleratorError)
        or (isinstance(each, RuntimeError) and _FAILED.search(str(each)) is not None)
        for each in causes(error)
    )


def wait_for(device: torch.device) -> None:
    """Wait for the device, so that a failure of work that was only launched is raised here.

    Raises:
        torch.AcceleratorError: the device failed.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
