"""Helpers that all export targets share: new folders, missing packages, names without collisions."""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError

_AWKWARD = "%?#\\"
"""Characters that table formats interpret as parts of a URL, so that they would read another path."""


@contextmanager
def new_folder(dest: str | Path, run: str) -> Iterator[Path]:
    """Yield an empty folder to write into, and remove what was written if the block fails.

    Args:
        dest: the folder, which is made with its parents.
        run: path or URL of the run folder; `dest` must be outside, because readers take all files in it for the run's.

    Raises:
        ConfigError: the folder is not empty, its path is not suitable, or it cannot be written to.
    """
    folder = Path(dest).expanduser().resolve()
    if "://" in str(dest) or folder.is_relative_to(Path(run).resolve()):
        raise ConfigError.one("DEST", f"'{dest}' is not a local folder outside the run", "choose another")
    check_plain("DEST", str(folder))
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError.one("DEST", f"'{dest}' is not an empty folder", "choose another")
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with _removed_on_failure(folder, including_itself=made):
            yield folder
    except OSError as error:
        raise ConfigError.one("DEST", f"cannot write to '{dest}': {error.strerror or error}") from None


def check_plain(where: str, path: str) -> None:
    """Refuse a path that table formats would misread; raises ConfigError."""
    if any(sign in path for sign in _AWKWARD):
        raise ConfigError.one(where, f"'{path}' contains one of {' '.join(_AWKWARD)}", "use a path without it")


def not_installed(package: str) -> ConfigError:
    """Make the error for a target whose package is not installed."""
    return ConfigError.one("--to", f"{package} is not installed", "pip install 'camatlas[export]'")


def distinct(names: Iterable[str]) -> list[str]:
    """Make names distinct: the second `crane` becomes `crane_2`."""
    used: dict[str, None] = {}
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{count}" for count in itertools.count(2)))
        used[next(candidate for candidate in candidates if candidate not in used)] = None
    return list(used)


@contextmanager
def _removed_on_failure(folder: Path, *, including_itself: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if including_itself:
            folder.rmdir()
        raise
