"""Imports the functions that a run file names as `package.module:function`, also from the working folder."""

import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import ConfigError, first_line, nearest

_DIGEST_DIGITS = 16
_OURS = ("camatlas", "jobs", "pipeline", "schemas")
_INSTALLED = frozenset(
    [*(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")), Path(os.__file__).parent]
)
"""Folders of packages that are installed; in a virtual environment, Python's own library lies elsewhere."""


def imported(where: str, name: str) -> Callable[..., Any]:
    """Import a function by its name `package.module:function`; the working folder is searched first.

    Args:
        where: the key of the run file that names the function.
        name: the name.

    Raises:
        ConfigError: the module cannot be imported, or has no such function.
    """
    function = found(where, name)
    if not callable(function):
        raise ConfigError.one(where, f"'{name}' is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def found(where: str, name: str) -> Any:  # noqa: ANN401 - whatever the user's module holds
    """Import what `package.module:name` names, whatever it is; the working folder is searched first.

    Args:
        where: the key of the run file that names it.
        name: the name.

    Raises:
        ConfigError: the module cannot be imported, or has nothing of that name.
    """
    module_name, _, member = name.partition(":")
    module = _imported_module(where, module_name)
    try:
        return attrgetter(member)(module)
    except AttributeError:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        place = f" ({module.__file__})" if getattr(module, "__file__", None) else ""
        raise ConfigError.one(
            where, f"the module '{module_name}'{place} has no '{member}'", nearest(member, known)
        ) from None


def called(where: str, name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Call a user's function with keyword arguments and return its result.

    Args:
        where: the key of the run file that names the function.
        name: the function's name, for messages.
        function: the function.
        arguments: its keyword arguments, from the key `arguments` beside `where`.

    Raises:
        ConfigError: the function does not take these arguments, or raises an exception.
    """
    beside = f"{where.rpartition('.')[0]}.arguments"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function in C may have none
        signature = None
    if signature is not None:
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError.one(
                beside, f"'{name}' cannot be called: {error}", f"its signature is {signature}; set {beside}"
            ) from None
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise ConfigError.one(
            where, f"'{name}' raised {first_line(error)}{place_of(error)}", "call it in Python to see the whole error"
        ) from error


def source_digest(where: str, name: str, function: Callable[..., Any]) -> str:
    """Hash the file that defines a function; an object that is called belongs to the module that is named.

    Args:
        where: the key of the run file that names the function.
        name: its name `package.module:function`.
        function: the function.

    Raises:
        ConfigError: there is no such file.
    """
    module = sys.modules[name.partition(":")[0]]
    defined_in = inspect.getmodule(inspect.unwrap(function)) if inspect.isroutine(function) else module
    try:
        text = Path(getattr(defined_in, "__file__", None) or "").read_bytes()
    except OSError:
        raise ConfigError.one(
            where, f"the source of '{name}' cannot be read, so a change of it would go unnoticed",
            "call it from a function in a file of your own",
        ) from None  # fmt: skip
    return hashlib.sha256(text).hexdigest()[:_DIGEST_DIGITS]


def place_of(error: BaseException) -> str:
    """Return the file and line of the user's code that raised an error, as ` (file.py:12)`; empty if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(Path(frame.filename))]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def modules_beside(names: Iterable[str]) -> list[ModuleType]:
    """List the imported modules that lie in the folders of the named functions' modules, and are not installed.

    These are what another process cannot import by itself.
    """
    named = [sys.modules.get(name.partition(":")[0]) for name in names]
    folders = {folder for module in named if module is not None and (folder := import_folder(module)) is not None}
    return [module for module in [*sys.modules.values()] if import_folder(module) in folders] if folders else []


def _imported_module(where: str, name: str) -> ModuleType:
    here = Path.cwd()
    try:
        with _searched_first(str(here)):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError.one(
                where, f"the module '{name}' needs the module '{error.name}', which is not installed"
            ) from error
        hint = nearest(name, sorted(path.stem for path in here.glob("*.py")))
        if name.partition(".")[0] in _OURS:
            hint = f"'{name.partition('.')[0]}' is a package of camatlas; rename yours"
        raise ConfigError.one(
            where, f"there is no module '{name}' in {here} or among the installed ones", hint
        ) from None
    except (Exception, SystemExit) as error:  # a user's module may raise anything
        raise ConfigError.one(
            where,
            f"importing '{name}' raised {first_line(error)}{place_of(error)}",
            "import it in Python to see the whole error",
        ) from error


@contextmanager
def _searched_first(folder: str) -> Iterator[None]:
    """Search a folder before all others for imports, and afterwards after all others."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:  # the function may import more when it is called
            sys.path.append(folder)


def import_folder(module: ModuleType) -> Path | None:
    """Return the folder that a user's module was imported from; None for ours, installed and built-in ones."""
    name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    if not isinstance(file, str) or not isinstance(name, str) or name.partition(".")[0] in _OURS:
        return None
    path = Path(file)
    depth = name.count(".") + (path.stem == "__init__")
    return path.parents[depth] if is_users(path) and depth < len(path.parents) else None


def is_users(path: Path) -> bool:
    """Tell whether a file is the user's: neither installed, nor part of camatlas, nor made up."""
    home = Path(__file__).resolve().parents[2]
    ours = any(path.is_relative_to(home / package) for package in _OURS)
    return path.suffix == ".py" and not ours and not any(path.is_relative_to(folder) for folder in _INSTALLED)
