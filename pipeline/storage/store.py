"""Opens the store that a path or URL names."""

import errno
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.storage.base import Store
from pipeline.storage.local_store import LocalStore

_UNREADABLE = (errno.ELOOP, errno.EISDIR, errno.EIO)


def open_store(url: str) -> Store:
    """Open the place that a run folder's path or URL names: a folder, or a prefix in an object store.

    Raises:
        ConfigError: the scheme is not supported, or no bucket is named.
    """
    scheme, found, rest = url.partition("://")
    if found and scheme != "file":
        from pipeline.storage.object_store import ObjectStore  # torch images without obstore still explain

        return ObjectStore(url)
    return LocalStore(Path(rest if found else url).expanduser())


def is_unanswered(error: BaseException) -> bool:
    """Whether a store did not answer, which says nothing of what lies there: it may be sound.

    What nobody can read (a link, a folder, a broken disk) is an answer.
    """
    cause = error.__cause__
    return isinstance(error, StoreError) and not (isinstance(cause, OSError) and cause.errno in _UNREADABLE)
