"""Freed memory, kept by the process for the next pass."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
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
    """Keep freed memory until the process ends; see `kept_freed_memory`."""
    _set(_KEEP, _KEEP)


def _set(mmap_bytes: int, trim_bytes: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library: nothing to set
        return
    mallopt(_MMAP_THRESHOLD, mmap_bytes)
    mallopt(_TRIM_THRESHOLD, trim_bytes)
