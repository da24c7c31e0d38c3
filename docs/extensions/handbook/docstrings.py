"""Makes reStructuredText of docstrings, which are plain sentences with code between single backticks."""

import re

from sphinx.application import Sphinx

_CODE = re.compile(r"(`[^`]+`)")


def as_rst(line: str) -> str:
    """Mark code as reStructuredText does, and escape signs that mean something there."""
    parts = _CODE.split(line)
    return "".join(f"`{part}`" if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part) for part in parts)


def _convert(_app: Sphinx, _what: str, _name: str, _found: object, _options: object, lines: list[str]) -> None:
    text = "\n".join(lines)  # a span may go on in the next line
    lines[:] = "".join(map(as_rst, re.split(r"(?<=\n)(?=\s*\n)", text))).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    """Convert docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", _convert, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
