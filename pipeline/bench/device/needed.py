"""The libraries that the measurements of a device need; Ray, DuckDB and object stores are not among them."""

from importlib.metadata import version
from importlib.util import find_spec

from pipeline.errors import ConfigError

LIBRARIES = {
    "PIL": "pillow", "numpy": "numpy", "pandas": "pandas", "pyarrow": "pyarrow", "pydantic": "pydantic",
    "safetensors": "safetensors", "scipy": "scipy", "simplejpeg": "simplejpeg", "torch": "torch",
    "torchvision": "torchvision", "typer": "typer", "yaml": "pyyaml",
}  # fmt: skip
"""Packages by the name of their module."""
OLDEST_TORCH = (2, 10)


def check_libraries() -> None:
    """Raise ConfigError if a library is missing, naming all that are, or if PyTorch is too old."""
    if missing := [package for module, package in LIBRARIES.items() if find_spec(module) is None]:
        raise ConfigError.one("--device", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    if _release(version("torch")) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise ConfigError.one("--device", f"torch {version('torch')} is installed, and {oldest} is the oldest", "")


def _release(text: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in text.split("+")[0].split(".")[:2])
