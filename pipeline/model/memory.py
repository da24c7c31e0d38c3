"""Freed memory, kept by the process for the next pass."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = 2**30
_USUAL = 32 * 2**20
"""Where glibc's own adjustment ends after large blocks were freed."""
FREED_MEMORY_IS_KEPT = {
    "MALLOC_ARENA_MAX": "1",  # those of threads are too small for activations
    "MALLOC_MMAP_THRESHOLD_": str(_KEEP),
    "MALLOC_TRIM_THRESHOLD_": str(_KEEP),
}
"""Environment of a process that keeps freed memory in all of its threads; it works from the process's start only."""


@contextmanager
def kept_freed_memory() -> Iterator[None]:
    """Keep freed memory for as long as this lasts.

    Activations of one pass are blocks of megabytes, which glibc gives back to the system when they are freed; the next
    pass then spends up to half of its time on page faults. The setting belongs to the process, so that only a process
    of one's own may be set. Elsewhere than under Linux nothing happens.
    """
    _set(_KEEP, _KEEP)
    try:
        yield
    finally:
        _set(_USUAL, 2 * _USUAL)


def keep_freed_memory() -> None:
    """Keep freed memory until the process ends, in its main thread; see `kept_freed_memory`."""
    _set(_KEEP, _KEEP)


def _set(mmap_bytes: int, trim_bytes: int) -> None:
    _mallopt(_MMAP_THRESHOLD, mmap_bytes)
    _mallopt(_TRIM_THRESHOLD, trim_bytes)


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library: nothing to set
            ctypes.CDLL(None).mallopt(parameter, value)
