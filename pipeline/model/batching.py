"""Work in passes of bounded size: filled up to a fixed multiple, halved when memory runs out."""

import time
from collections.abc import Callable, Iterable, Sequence
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
            do not depend on how images were batched. Passes that were narrowed are filled up to their own size.
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
        missing = -len(rows) % min(self.multiple, self.size)
        return rows if not missing else torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])

    def fill_images(self, images_PCHW: Tensor) -> Tensor:
        """Do so with images, colours last in memory whether filled up or not: another layout gives other bits."""
        return self.fill(images_PCHW).contiguous(memory_format=torch.channels_last)


def narrow(batchers: Sequence[Batcher]) -> bool:
    """Halve passes below what they are filled up to: results then agree up to rounding. False at one row."""
    size = min(min(batcher.size, batcher.multiple) for batcher in batchers) // 2
    for batcher in batchers if size else ():
        batcher.size = size
    return size > 0


def fastest_size(
    run: Callable[[int], object], sizes: Iterable[int], *, gain: float = 1.03, patience: float = 0.25
) -> int:
    """Find the size of a pass that does most rows a second, by a short trial.

    Args:
        run: does one pass of a size and waits for its end.
        sizes: to try, growing.
        gain: a larger size must be this many times as fast as the smaller ones.
        patience: stop after a pass that took this many seconds, or after two sizes that gained nothing.

    Returns:
        The smallest size where memory does not suffice even for that.
    """
    rates = dict[int, float]()
    for size in sizes:
        try:
            run(size)  # warms up
            seconds = min(_seconds(run, size), _seconds(run, size))  # what disturbs a pass makes it slower only
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            _release()
            rates = rates or {size: 0.0}
            break
        rates[size] = size / seconds
        earlier = list(rates.values())[:-2]
        if seconds > patience or (earlier and gain * max(earlier) >= max(rates.values())):
            break
    return next(size for size, rate in rates.items() if gain * rate >= max(rates.values()))


def _seconds(run: Callable[[int], object], size: int) -> float:
    began = time.perf_counter()
    run(size)
    return time.perf_counter() - began


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise an allocation that failed, on an accelerator or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
