"""Helpers for file systems: list folders and temporary files, and make calls fail like a broken disk."""

import os
from collections.abc import Callable
from pathlib import Path

HEX = "0123456789abcdef" * 2


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def visible(folder: Path) -> dict[str, bytes]:
    """Return the contents of the files in a run folder by name, without temporary files."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail
