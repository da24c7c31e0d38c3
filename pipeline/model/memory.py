"""Makes a process keep freed memory, so that the next forward pass reuses it without page faults."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 2**30
_USUAL = 32 * 2**20
"""The upper limit of the threshold that glibc adjusts by itself, in bytes."""
FREED_MEMORY_IS_KEPT = {
    "MALLOC_ARENA_MAX": "1",  # the arenas of other threads are too small for activations
    "MALLOC_MMAP_THRESHOLD_": str(_KEEP),
    "MALLOC_TRIM_THRESHOLD_": str(_KEEP),
}
"""Environment variables that make a process keep freed memory in all threads; they must be set before it starts."""


@contextmanager
def kept_freed_memory() -> Iterator[None]:
    """Keep freed memory while the context is open.

    The activations of a pass are blocks of megabytes, which glibc returns to the system when they are freed. The next
    pass then spends up to half of its time on page faults. The setting applies to the whole process, so use it only in
    processes that camatlas has started. It has no effect on systems other than Linux.
    """
    _set(_KEEP, _KEEP)
    try:
        yield
    finally:
        _set(_USUAL, 2 * _USUAL)


def keep_freed_memory() -> None:
    """Keep freed memory of the main thread until the process ends; see `kept_freed_memory`."""
    _set(_KEEP, _KEEP)


def _set(mmap_bytes: int, trim_bytes: int) -> None:
    _mallopt(_MMAP_THRESHOLD, mmap_bytes)
    _mallopt(_TRIM_THRESHOLD, trim_bytes)


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library than glibc has no mallopt
            ctypes.CDLL(None).mallopt(parameter, value)
