"""Hive folders: the names of folders such as `label=65` are columns of the Parquet files in them."""

from collections.abc import Iterable
from urllib.parse import unquote

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_columns(location: str) -> dict[str, str | None]:
    """Return the columns that the folders directly above a Parquet file stand for, from the outermost one on."""
    found: list[tuple[str, str | None]] = []
    for folder in reversed(location.split("/")[:-1]):
        name, equals, value = folder.partition("=")
        if not equals or not name:
            break
        found.append((unquote(name), None if value == _NULL else unquote(value)))
    return dict(reversed(found))


def partitioned(locations: Iterable[str]) -> list[str]:
    """Return the Parquet files that lie in such folders, sorted; hidden ones are left out."""
    return sorted(
        location
        for location in locations
        if location.lower().endswith(".parquet")
        and partition_columns(location)
        and not location.rpartition("/")[2].startswith((".", "_"))
    )
