"""Runs work in passes of bounded size: padded to a fixed multiple of rows, halved when memory runs out."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

DEFAULT_BATCH = 32

_OUT_OF_MEMORY = re.compile(
    r"out[ _]?of[ _]?((device|host)[ _]?)?memory"  # CUDA, HIP, XPU, MPS and their drivers, NVRTC, Triton
    r"|_ALLOC(ATION)?_FAILED"  # cuDNN, cuBLAS, cuSOLVER, cuSPARSE, cuFFT, hipBLAS
    r"|(cuda|hip)ErrorMemoryAllocation|invalid buffer size: "  # CUDA and HIP by their names, MPS
    r"|(can ?not|can't|unable to|failed to|could not) allocate (\w+ ){0,3}(memory|workspace|buffer|bytes)"
    r"|unable to find an engine to execute"  # cuDNN, when no engine gets its workspace
    r"|miopenStatusAllocFailed|rocblas_status_memory_error"
    r"|DefaultCPUAllocator|std::bad_alloc|could not create a primitive(?! descriptor)",  # the CPU, oneDNN
    re.IGNORECASE,
)
"""The words of libraries that raise a RuntimeError when an allocation fails."""


class Batcher:
    """Cuts work into passes of at most `size` rows and remembers the size that fitted into memory.

    Args:
        size: most rows in one pass.
        multiple: the rows of every pass are padded to a multiple of this. With a multiple of 16, CPU kernels give the
            same bits for a row regardless of the other rows of its pass, so that results do not depend on how images
            are batched. (Linear layers must also have sizes that are multiples of 8, which holds for all known
            networks.) A pass that `narrow` made smaller than this is padded to its own size.
    """

    def __init__(self, size: int, multiple: int = 1) -> None:
        if size < 1 or multiple < 1:
            raise ValueError(f"batch and batch_multiple must be at least 1, not {size} and {multiple}")
        self.multiple = multiple
        self.size = -(-size // multiple) * multiple

    def run(self, total: int, work: Callable[[slice], Result]) -> list[Result]:
        """Run `work` on consecutive slices of `total` rows, halving the slices when memory runs out."""
        results: list[Result] = []
        start = 0
        while start < total:
            stop = min(start + self.size, total)
            try:
                results.append(work(slice(start, stop)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.size <= self.multiple:
                    raise
                self.size = max(self.multiple, self.size // 2 // self.multiple * self.multiple)
                _release()
            else:
                start = stop
        return results

    def pad(self, rows: Tensor) -> Tensor:
        """Repeat the last row until the number of rows is a multiple of `multiple`."""
        missing = -len(rows) % min(self.multiple, self.size)
        return rows if not missing else torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])

    def pad_images(self, images_PCHW: Tensor) -> Tensor:
        """Pad images, and lay them out channels-last in any case: the memory layout changes the bits of results."""
        return self.pad(images_PCHW).contiguous(memory_format=torch.channels_last)


def narrow(batchers: Sequence[Batcher]) -> bool:
    """Halve passes to below their padding multiple, which changes results by rounding; return False at one row."""
    size = min(min(batcher.size, batcher.multiple) for batcher in batchers) // 2
    for batcher in batchers if size else ():
        batcher.size = size
    return size > 0


def fastest_size(
    run: Callable[[int], object], sizes: Iterable[int], *, gain: float = 1.03, patience: float = 0.25
) -> int:
    """Time passes of increasing size and return the smallest size with nearly the highest throughput.

    Args:
        run: runs one pass of a given size and waits for its end.
        sizes: sizes to time, in increasing order.
        gain: a larger size is preferred only if its throughput is at least this many times that of the smaller ones.
        patience: stop after a pass that takes longer than this many seconds, or after two sizes without a gain.

    Returns:
        The chosen size; the smallest size if even that runs out of memory.
    """
    rates = dict[int, float]()
    for size in sizes:
        try:
            run(size)  # warms up
            seconds = min(_seconds(run, size), _seconds(run, size))  # interference can only make a pass slower
        except (RuntimeError, MemoryError) as error:
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
    """Tell whether an error is a failed allocation, on an accelerator or on the CPU, or was raised because of one."""
    return any(
        isinstance(each, torch.OutOfMemoryError | MemoryError)
        or (isinstance(each, RuntimeError) and _OUT_OF_MEMORY.search(str(each)) is not None)
        for each in causes(error)
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, the one it was raised from, the one that was raised from, and so on."""
    seen = set[int]()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        each = each.__cause__


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def for_autograd(tensor: Tensor) -> Tensor:
    """Clone a tensor that was made in inference mode, because autograd refuses those."""
    return tensor.clone() if tensor.is_inference() else tensor
