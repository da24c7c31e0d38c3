"""The interface of a run's store, on disk or in an object store: files under flat names, published atomically."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow.dataset


@dataclass(frozen=True)
class Stat:
    """Size and ETag of an object; the ETag changes with every put, and some stores have none."""

    size: int
    etag: str | None


@dataclass(frozen=True)
class Listed:
    """One entry of a listing.

    Attributes:
        name: within its folder.
        size: bytes.
        modified: seconds since 1970, UTC, by the store's clock.
    """

    name: str
    size: int
    modified: float


class Store(Protocol):
    """The operations a run needs from its store, on disk or in an object store; names are flat."""

    url: str

    def publish(self, name: str, data: bytes) -> bool:
        """Write `data` under `name` atomically, unless the name is taken; return False if it is taken."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Write `data` under `name` atomically, in the place of what it held."""
        ...

    def read(self, name: str) -> bytes:
        """Read one object; raise FileNotFoundError when it is absent, StoreError when it cannot be read."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """List the names directly in a folder, hidden ones included, sorted."""
        ...

    def listed(self) -> list[Listed]:
        """List the objects directly in the run folder, sorted by name; includes hidden ones, excludes folders."""
        ...

    def delete(self, name: str) -> None:
        """Remove one object if it exists."""
        ...

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open Parquet objects as one lazily read dataset with the schema of the first object.

        Reads verify checksums. Damage raises ValueError or OSError, either here or when the data is read.
        """
        ...

    def check_writable(self) -> None:
        """Raise ConfigError or StoreError if a run cannot be written here; leave nothing behind."""
        ...
