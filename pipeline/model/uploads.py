"""Images on their way to the device: one copy on the host, into memory that the device reads by itself.

The host copies images into one pinned buffer, which is used again and again, and the device fetches them on a stream of
their own. So the images of the next batch arrive while the model still runs on this one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Upload:
    """Images that are on their way.

    Attributes:
        images: the images on the host, by which the upload is known.
        there: their memory on the device.
        arrived: recorded on the stream of the copy, once it has ended.
    """

    images: Array
    there: Tensor
    arrived: torch.cuda.Event


class Uploads:
    """Sends images to a device. On a CPU, a batch is copied once, into memory of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._buffer_read: torch.cuda.Event | None = None
        self._stream: torch.cuda.Stream | None = None
        self._expected: Array | None = None
        self._begun: _Upload | None = None

    def expect(self, images: Array | None) -> None:
        """Name the images that `sent` will be asked for after those of this batch."""
        self._expected = images

    def begin_expected(self) -> None:
        """Start to send the expected images; they travel during the work that was launched before."""
        if self._device.type == "cuda" and self._expected is not None:
            self._begun, self._expected = self._upload(self._expected), None

    def sent(self, images: Array) -> Tensor:
        """Return images on the device; work that is launched on them waits there until they have arrived."""
        if self._device.type != "cuda":
            return torch.tensor(images, device=self._device)
        upload = self._begun if self._begun is not None and self._begun.images is images else self._upload(images)
        self._begun = None
        current = torch.cuda.current_stream(self._device)
        current.wait_event(upload.arrived)
        upload.there.record_stream(current)  # it belongs to the stream of the copy, and is in use on this one
        return upload.there

    def _upload(self, images: Array) -> _Upload:
        if self._buffer_read is not None and not self._buffer_read.query():  # type: ignore[no-untyped-call]
            self._buffer_read.synchronize()  # the device still reads the buffer
        pinned = self._room(images)
        np.copyto(pinned.numpy(), images)
        with torch.cuda.stream(self._own_stream()):
            there = pinned.to(self._device, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._buffer_read = arrived
        return _Upload(images, there, arrived)

    def _room(self, images: Array) -> Tensor:
        """Return pinned memory of the shape and type of images, at the start of the buffer."""
        if images.nbytes > self._buffer.numel():
            self._buffer = torch.empty(images.nbytes, dtype=torch.uint8).pin_memory()
        kind = torch.from_numpy(np.empty(0, images.dtype)).dtype
        return self._buffer[: images.nbytes].view(kind).view(images.shape)

    def _own_stream(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return self._stream
