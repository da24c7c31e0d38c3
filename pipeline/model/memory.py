"""Freed memory, kept by the process for the next pass."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEEP = 2**30
_USUAL = 32 * 2**20
"""Where glibc's own adjustment ends after large blocks were freed."""


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
    """Keep freed memory until the process ends, in its threads as well; see `kept_freed_memory`."""
    _set(_KEEP, _KEEP)
    _mallopt(_ARENA_MAX, 1)  # the arenas of threads are too small for activations


def _set(mmap_bytes: int, trim_bytes: int) -> None:
    _mallopt(_MMAP_THRESHOLD, mmap_bytes)
    _mallopt(_TRIM_THRESHOLD, trim_bytes)


def _mallopt(parameter: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library: nothing to set
            ctypes.CDLL(None).mallopt(parameter, value)
