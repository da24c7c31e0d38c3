"""Memory in which the pixels of the chunks of one work unit lie side by side, so that they travel as one buffer."""

import math

import numpy as np

from pipeline.data.framing import PixelArray


class Arena:
    """Gives arrays of pixels room one after another; a larger array than what is left begins another stretch.

    Memory that no array uses yet costs nothing: the system provides it when it is first written.
    """

    def __init__(self, stretch_bytes: int) -> None:
        self._stretch_bytes = stretch_bytes
        self._free = np.empty(0, np.uint8)

    def room(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> PixelArray:
        """Return memory for an array, right behind the previous one if it fits there."""
        needed = math.prod(shape) * dtype.itemsize
        if needed > len(self._free):
            self._free = np.empty(max(needed, self._stretch_bytes), np.uint8)
        taken, self._free = self._free[:needed], self._free[needed:]
        return taken.view(dtype).reshape(shape)

    def close(self) -> None:
        """Let the next array begin another stretch; those of before go when nobody holds an array in them."""
        self._free = np.empty(0, np.uint8)
