"""Methods and metrics of users: named as `package.module:Class`, by an entry point, or given as objects.

An entry point in the group `camatlas.methods` or `camatlas.metrics` gives a class of an installed package a short name.
"""

import dataclasses
import hashlib
import inspect
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import ConfigError, first_line
from pipeline.settings.functions import imported, is_users, place_of


class Named(ABC):
    """A method whose name in the run and whose identity depend on its parameters."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name in a run that gives it none."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what determines its results, as the run's identity records it."""


@dataclasses.dataclass(frozen=True)
class Plugin(Named):
    """A method or metric of a user's, as a run holds it.

    Attributes:
        inner: the user's object, a dataclass whose fields are its parameters.
        origin: `package.module:Class`.
        digest: sha256 of its source.
    """

    inner: Any
    origin: str
    digest: str

    @property
    def label(self) -> str:
        """Return the name in a run that gives it none."""
        return label_of(type(self.inner))

    def identity(self) -> dict[str, Any]:
        """Return what the run's identity records: the origin, the parameters, and the digest of the source."""
        return {"name": self.origin, **dataclasses.asdict(self.inner), "source_sha256": self.digest}


def named_class(name: str, group: str, where: str) -> type[Any] | None:
    """Import the class that a run file names; None if it is no name of a plug-in.

    Args:
        name: `package.module:Class`, or the name of an entry point.
        group: group of the entry points.
        where: the list of the run file, for messages.

    Raises:
        ConfigError: the class cannot be imported, or is not a dataclass.
    """
    if ":" in name:
        found = imported(where, name)
    else:
        entry = entries(group).get(name)
        if entry is None:
            return None
        found = _loaded(entry, where)
    if not isinstance(found, type):
        kind = "an object" if dataclasses.is_dataclass(found) else f"a {type(found).__name__}"
        raise ConfigError.one(where, f"'{name}' is {kind}, not a class", "name the class; parameters: {NAME: {...}}")
    if not dataclasses.is_dataclass(found):
        raise ConfigError.one(where, f"'{name}' is not a dataclass", "put @dataclass(frozen=True) before the class")
    return found


def entries(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name.

    Raises:
        ConfigError: several packages have the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise ConfigError.one(
                f"entry points '{group}'",
                f"'{entry.name}' is both {other.value} and {entry.value}",
                "uninstall one of the packages, or name the class as package.module:Class",
            )
    return found


def label_of(kind: type[Any]) -> str:
    """Return the name of a plug-in in a run: the `name` of its class, or the class in snake_case."""
    name = vars(kind).get("name", "")
    return name if isinstance(name, str) and name else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()


def origin_of(kind: type[Any]) -> str:
    """Return `package.module:Class` of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def source_digest(kind: type[Any]) -> str:
    """Return the sha256 of the source that defines a class.

    These are its module and the user's modules that it uses, or all files and the version of an installed package. A
    class that was typed into a notebook has the source of its class alone.
    """
    total = hashlib.sha256()
    for name, content in sorted(_sources(kind)):
        total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def plugin_names(specs: Iterable[object]) -> Iterator[str]:
    """Yield the names `package.module:Class` in a list of methods or metrics of a run file."""
    for spec in specs:
        names = spec if isinstance(spec, Mapping) else [spec]
        yield from (name for name in names if isinstance(name, str) and ":" in name)


def _loaded(entry: EntryPoint, where: str) -> Any:  # noqa: ANN401 - whatever a package names
    try:
        return entry.load()
    except Exception as error:  # a user's package may raise anything
        raise ConfigError.one(
            where,
            f"the plug-in '{entry.name}' ({entry.value}) cannot be imported: {first_line(error)}{place_of(error)}",
        ) from error


def _sources(kind: type[Any]) -> Iterator[tuple[str, bytes]]:
    module = sys.modules.get(kind.__module__)
    file = Path(getattr(module, "__file__", None) or "")
    if module is None or not file.is_file():
        yield kind.__qualname__, _class_source(kind).encode()
    elif is_users(file):
        for each in _used_modules(module):
            yield each.__name__, Path(str(each.__file__)).read_bytes()
    else:
        top = kind.__module__.partition(".")[0]
        yield from ((f"{name} {version(name)}", b"") for name in packages_distributions().get(top, []))
        package = Path(str(sys.modules[top].__file__)).parent if "." in kind.__module__ else None
        files = package.rglob("*.py") if package else [file]
        yield from ((path.relative_to(package or file.parent).as_posix(), path.read_bytes()) for path in files)


def _class_source(kind: type[Any]) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return repr(kind)


def _used_modules(module: ModuleType) -> list[ModuleType]:
    """List a user's module and the user's modules whose contents it has imported, directly or not."""
    found = {module.__name__: module}
    for each in (waiting := [module]):
        for value in list(vars(each).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            used = sys.modules.get(name) if isinstance(name, str) else None
            if (
                used is not None
                and used.__name__ not in found
                and is_users(Path(getattr(used, "__file__", None) or ""))
            ):
                found[used.__name__] = used
                waiting.append(used)
    return list(found.values())
