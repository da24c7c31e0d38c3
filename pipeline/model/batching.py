"""Work in passes of bounded size: filled up to a fixed multiple, halved when memory runs out."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Batcher:
    """Cuts work into passes of at most `size` rows and remembers how much memory allowed.

    Args:
        size: most rows in one pass.
        multiple: rows of every pass are filled up to a multiple of this. CPU kernels give the same bits for a
            row whatever stands beside it as long as the number of rows is a multiple of 16 (and linear layers
            have sizes that are multiples of 8, which all known networks keep to), so that results
            do not depend on how images were batched.
    """

    def __init__(self, size: int, multiple: int = 1) -> None:
        if size < 1 or multiple < 1:
            raise ValueError(f"a pass holds at least one row, not {size}")
        self.multiple = multiple
        self.size = -(-size // multiple) * multiple

    def run(self, total: int, work: Callable[[slice], Result]) -> list[Result]:
        """Do `work` on consecutive slices of `total` rows, halving the slices when memory runs out."""
        results: list[Result] = []
        start = 0
        while start < total:
            stop = min(start + self.size, total)
            try:
                results.append(work(slice(start, stop)))
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.size <= self.multiple:
                    raise
                self.size = max(self.multiple, self.size // 2 // self.multiple * self.multiple)
                _release()
            else:
                start = stop
        return results

    def fill(self, rows: Tensor) -> Tensor:
        """Repeat the last row until the number of rows is a multiple of `multiple`."""
        missing = -len(rows) % self.multiple
        return rows if not missing else torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise an allocation that failed, on an accelerator or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
