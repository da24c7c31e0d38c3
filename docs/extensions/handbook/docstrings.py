"""Makes reStructuredText of docstrings, which are plain sentences with code between single backticks."""

import re

from sphinx.application import Sphinx

_CODE = re.compile(r"(`[^`]+`)")
_SEVERAL_NAMES = re.compile(r"^( +)(\w+(?:, \w+)+):(?= )", re.MULTILINE)
_TYPE = ":type: "
_VALUES = ("property", "attribute", "data")


def as_rst(text: str) -> str:
    """Mark code as reStructuredText does, and escape signs that mean something there."""
    parts = _CODE.split(text)
    return "".join(f"`{part}`" if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part) for part in parts)


def _convert(_app: Sphinx, _what: str, _name: str, _found: object, _options: object, lines: list[str]) -> None:
    text = _SEVERAL_NAMES.sub(lambda found: f"{found[1]}{found[2].replace(' ', '')}:", "\n".join(lines))
    lines[:] = as_rst(text).split("\n")


def _join(_app: Sphinx, what: str, _name: str, _found: object, _options: object, lines: list[str]) -> None:
    """Put the words before a colon back, which napoleon has taken for the type of a value."""
    types = [line.removeprefix(_TYPE) for line in lines if line.startswith(_TYPE)]
    if what in _VALUES and types:
        lines[:] = [line for line in lines if not line.startswith(_TYPE)]
        lines[0] = f"{types[0]}: {lines[0]}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Convert docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _convert, priority=400)
    app.connect("autodoc-process-docstring", _join, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
