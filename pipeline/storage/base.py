"""What a store of a run offers, on disk or in an object store: flat names that are published whole or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow.dataset


@dataclass(frozen=True)
class Stat:
    """What a store says of an object; the ETag changes with every put, and some stores have none."""

    size: int
    etag: str | None


@dataclass(frozen=True)
class Listed:
    """What a listing says of one object.

    Attributes:
        name: within its folder.
        size: bytes.
        modified: seconds since 1970, UTC, by the clock of the place.
    """

    name: str
    size: int
    modified: float


class Store(Protocol):
    """What a run needs of a place: a handful of verbs over flat names, on disk or in an object store."""

    url: str

    def publish(self, name: str, data: bytes) -> bool:
        """Make `data` appear under `name` whole and only if nothing is there; False when something is."""
        ...

    def read(self, name: str) -> bytes:
        """Read one object; raises FileNotFoundError when it is absent, StoreError when it cannot be read."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """List the names directly in a folder, hidden ones included, sorted."""
        ...

    def listed(self) -> list[Listed]:
        """List the objects directly in the run folder, hidden ones included, folders not, sorted by name."""
        ...

    def delete(self, name: str) -> None:
        """Remove one object if it is there."""
        ...

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open Parquet objects as one dataset with the schema of the first, to be read as it is asked.

        What is read is compared with checksums; raises ValueError or OSError, here or then, where it is damaged.
        """
        ...

    def check_writable(self) -> None:
        """Refuse a place that cannot take a run, leaving nothing behind; raises ConfigError or StoreError."""
        ...
