"""Compiles a model for passes of a few sizes; a model that cannot be compiled runs uncompiled, with a warning.

Every size of a pass needs a graph of its own, which takes up to a minute to compile. So a pass is padded to a size that
has one, unless that would more than double it, and cut into several where it is larger than all of them.

CUDA graphs are not used. They return the same memory in every pass, although scores of several passes are kept, and
they belong to the thread that recorded them, although the calls of an actor come from several.

Legend: P rows of a pass, C colours, (H, W) pixels, N classes.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import first_line
from pipeline.model.batching import is_out_of_memory
from pipeline.model.device_failure import is_device_failure

MOST_GRAPHS = 3
"""Most sizes that are compiled."""
_OPTIONS: dict[str, Any] = {"freezing": True, "triton.cudagraphs": False, "compile_threads": 1}

Network = Callable[[Tensor], Any]
Work = Callable[[Network, Tensor], Tensor]
"""Runs a network on pixels (P, C, H, W) and returns logits (P, N)."""


class Compiled:
    """A compiled model.

    Args:
        model: the model, in evaluation mode.
        work: how the logits of a pass are computed, with the model or its compiled form.

    Attributes:
        trouble: why the model runs uncompiled; empty as long as it does not.
    """

    def __init__(self, model: nn.Module, work: Work) -> None:
        self._model, self._work = model, work
        self._network: Network = torch.compile(model, dynamic=False, options=_OPTIONS)
        self._shape: torch.Size | None = None
        self._sizes = set[int]()
        self._tried = 0
        self.trouble = ""

    def logits(self, pixels_PCHW: Tensor) -> Tensor:
        """Run the compiled model on any number of rows, and return logits (P, N)."""
        self._shape = self._shape or pixels_PCHW.shape[1:]
        size = self._size(len(pixels_PCHW))
        if self.trouble or size is None or pixels_PCHW.shape[1:] != self._shape:
            return self._work(self._model, pixels_PCHW)
        if size < len(pixels_PCHW):
            return torch.cat([self.logits(rows_PCHW) for rows_PCHW in torch.split(pixels_PCHW, size)])
        return self._of_size(size, pixels_PCHW)

    def _size(self, rows: int) -> int | None:
        """Choose the size of a graph for a pass, or for pieces of it; None if all graphs were too large for memory."""
        fitting = min((size for size in self._sizes if size >= rows), default=None)
        can_compile = self._tried < MOST_GRAPHS
        if fitting is not None and (fitting <= 2 * rows or not can_compile):
            return fitting
        return self._new_size(rows) if can_compile else max(self._sizes, default=None)

    def _new_size(self, rows: int) -> int:
        """Choose a size to compile: the largest as it is, and others rounded up, so that they serve more passes."""
        largest = max(self._sizes, default=0)
        return rows if rows > largest else min(1 << (rows - 1).bit_length(), largest)

    def _of_size(self, size: int, pixels_PCHW: Tensor) -> Tensor:
        """Run at most `size` rows with the graph of this size."""
        is_new = size not in self._sizes
        self._tried += is_new
        last_PCHW = pixels_PCHW[-1:].expand(size - len(pixels_PCHW), -1, -1, -1)
        padded_PCHW = torch.cat([pixels_PCHW, last_PCHW]).contiguous(memory_format=torch.channels_last)
        try:
            logits_PN = self._work(self._network, padded_PCHW)
        except Exception as error:  # compilers raise many types
            if is_out_of_memory(error):
                self._sizes = {each for each in self._sizes if each < size}
                raise
            if is_device_failure(error) or not is_new:
                raise
            logits_PN = self._work(self._model, padded_PCHW)  # raises if the model is the cause
            self.trouble = f"the model cannot be compiled and runs uncompiled: {first_line(error)}"
            warnings.warn(self.trouble, stacklevel=2)
        self._sizes.add(size)
        return logits_PN[: len(pixels_PCHW)]
