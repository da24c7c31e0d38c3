"""Digests the source of a user's class, so that a run whose plug-ins changed is another run."""

import ast
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pipeline.errors import ConfigError
from pipeline.settings.functions import import_folder, is_users
from schemas.manifest import digest_of


def source_digest(where: str, name: str, kind: type) -> str:
    """Hash the source of a class (sha256, hexadecimal).

    Of a module of the user's, these are its file and those beside it that its import statements name, and so on; of an
    installed one, the files and the version of its package.

    Args:
        where: the key of the run file that names the class.
        name: the name, `package.module:Class`.
        kind: the class; it may be defined in another module than the named one.

    Raises:
        ConfigError: a module has no file that can be read.
    """
    files = dict[str, str]()
    for module_name in dict.fromkeys((name.partition(":")[0], kind.__module__)):
        module = sys.modules.get(module_name)
        try:
            files |= _files_of(module) if module is not None else {}
        except OSError:
            files = {}
        if not files:
            raise ConfigError.one(
                where,
                f"the source of '{name}' cannot be read, so a change of it would go unnoticed",
                "define the class in a file of your own",
            )
    return digest_of(sorted(files.items()))


def _files_of(module: ModuleType) -> dict[str, str]:
    """Return the sha256 of each file that a module's code is in, by its path below the folder it is imported from."""
    folder = import_folder(module)
    if folder is not None:
        return {path.relative_to(folder).as_posix(): _sha256(path) for path in _imported_files(folder, module.__name__)}
    return _package_files(module)


def _imported_files(folder: Path, module: str) -> list[Path]:
    """List the files of a module below a folder, and of all modules there that its import statements reach."""
    waiting, seen = [module], set[str]()
    files = dict[Path, None]()
    for name in waiting:  # it grows
        path = _file_of(folder, name)
        if name in seen or path is None:
            continue
        seen.add(name)
        files[path] = None
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [part for found in (name, *_imports(path, package)) for part in _parents(found)]
    return list(files)


def _file_of(folder: Path, module: str) -> Path | None:
    """Return the file of a module of the user's below a folder; None if there is none."""
    place = folder.joinpath(*module.split("."))
    paths = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in paths if path.is_file() and is_users(path)), None)


def _imports(path: Path, package: str) -> Iterator[str]:
    """Yield the full names that the import statements of a file may mean, wherever they stand in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _parents(name: str) -> Iterator[str]:
    """Yield `a`, `a.b` and `a.b.c` for `a.b.c`: importing a module runs the packages above it."""
    parts = [part for part in name.split(".") if part not in ("", "*")]
    yield from (".".join(parts[: length + 1]) for length in range(len(parts)))


def _package_files(module: ModuleType) -> dict[str, str]:
    """Return the sha256 of each file of the installed package that a module belongs to, and the package's version."""
    top = module.__name__.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None) or getattr(module, "__file__", None)
    main = Path(file or "")
    if not main.is_file():
        return {}
    paths = sorted(main.parent.rglob("*")) if main.name == "__init__.py" else [main]
    files = {
        path.relative_to(main.parent).as_posix(): _sha256(path)
        for path in paths
        if path.is_file() and "__pycache__" not in path.parts
    }
    distributions = importlib.metadata.packages_distributions().get(top, [])
    return {f"{top}/{name}": sha256 for name, sha256 in files.items()} | {
        f"{name} (version)": importlib.metadata.version(name) for name in distributions
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
