"""Opens the store for a path or URL."""

import errno
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.storage.base import Store
from pipeline.storage.local_store import LocalStore

_UNREADABLE = (errno.ELOOP, errno.EISDIR, errno.EIO)


def open_store(url: str) -> Store:
    """Open the store of a run folder, given its path or URL: a local folder, or a prefix in an object store.

    Raises:
        ConfigError: the scheme is not supported, or the URL names no bucket.
    """
    scheme, found, rest = url.partition("://")
    if found and scheme != "file":
        from pipeline.storage.object_store import ObjectStore  # optional: local runs work without obstore

        return ObjectStore(url)
    return LocalStore(Path(rest if found else url).expanduser())


def is_unanswered(error: BaseException) -> bool:
    """Return whether an error is an outage of the store, which says nothing about the state of the file.

    Permanent errors (a symbolic link, a folder in place of the file, a disk error) are not outages.
    """
    cause = error.__cause__
    return isinstance(error, StoreError) and not (isinstance(cause, OSError) and cause.errno in _UNREADABLE)
