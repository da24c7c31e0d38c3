"""What all targets share: a folder of their own, packages that may be missing, names without collisions."""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ConfigError

_AWKWARD = "%?#\\"
"""Signs that table formats take for a part of a URL, so that they would look elsewhere."""


@contextmanager
def new_folder(dest: str | Path, run: str) -> Iterator[Path]:
    """Give an empty folder to write into; what was written is removed when the work inside fails.

    Args:
        dest: where it shall be; made with its parents.
        run: path or URL of the run folder, which must not contain it: readers take what lies there for the run's.

    Raises:
        ConfigError: there is something already, the place does not suit, or it cannot be written to.
    """
    folder = Path(dest).expanduser().resolve()
    if "://" in str(dest) or folder.is_relative_to(Path(run).resolve()):
        raise ConfigError.one("DEST", f"'{dest}' is no local folder outside the run", "choose another")
    check_plain("DEST", str(folder))
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError.one("DEST", f"'{dest}' is not an empty folder", "choose another")
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with _removed_on_failure(folder, itself=made):
            yield folder
    except OSError as error:
        raise ConfigError.one("DEST", f"cannot write to '{dest}': {error.strerror or error}") from None


def check_plain(where: str, path: str) -> None:
    """Refuse a path that table formats would misread; raises ConfigError."""
    if any(sign in path for sign in _AWKWARD):
        raise ConfigError.one(where, f"'{path}' has one of {' '.join(_AWKWARD)} in it", "choose a plainer path")


def not_installed(package: str) -> ConfigError:
    """Say that a target needs a package that is not there."""
    return ConfigError.one("--to", f"{package} is not installed", "pip install 'camatlas[export]'")


def distinct(names: Iterable[str]) -> list[str]:
    """Give equal names different ones: the second `crane` becomes `crane_2`."""
    found: dict[str, None] = {}
    for name in names:
        tries = itertools.chain([name], (f"{name}_{count}" for count in itertools.count(2)))
        found[next(other for other in tries if other not in found)] = None
    return list(found)


@contextmanager
def _removed_on_failure(folder: Path, *, itself: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if itself:
            folder.rmdir()
        raise
