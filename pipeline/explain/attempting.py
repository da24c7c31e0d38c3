"""Tells what an image may have caused from what it cannot have: a failure of the device, or a mistake of the user's."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch

from pipeline.errors import CamatlasError, DeviceFailedError, first_line
from pipeline.model.batching import is_out_of_memory
from pipeline.model.device_failure import is_device_failure, wait_for

Result = TypeVar("Result")
_MOST_NAMED = 8
"""Most images named in an error message."""


class FailureReason(NamedTuple):
    """Why images could not be explained; unlike an exception, it keeps no tensors alive through its traceback."""

    code: str
    detail: str


def attempted(work: Callable[[], Result], device: torch.device) -> Result | FailureReason:
    """Run some work and return its result, or the reason if it raises an error that an image may have caused."""
    try:
        return work()
    except Exception as error:  # a model may raise any error
        if is_out_of_memory(error):
            return FailureReason("out_of_memory", first_line(error))
        if isinstance(error, CamatlasError) or is_device_failure(error):
            raise  # not caused by an image alone
        wait_for(device)  # an error of the model's may follow from a failure of what it launched before
        return FailureReason("model_error", first_line(error))


@contextmanager
def device_failures_told(keys: Sequence[str]) -> Iterator[None]:
    """Turn a failure of the device into a DeviceFailedError that names the images which were on it."""
    try:
        yield
    except Exception as error:
        if not is_device_failure(error):
            raise
        more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
        images = f"{', '.join(keys[:_MOST_NAMED])}{more}"
        raise DeviceFailedError(f"the device failed: {first_line(error)}; on it were the images {images}") from error
