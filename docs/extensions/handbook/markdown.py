"""Pieces of Markdown, made of texts that may contain its signs."""

import re
from collections.abc import Iterable, Sequence

_SIGNS = re.compile(r"([\\*_\[\]<>|$#^~{}])")
_CODE = re.compile(r"(`[^`]+`)")


def escaped(text: str) -> str:
    """Escape the signs of Markdown in a text, except in its code spans."""
    return "".join(part if part.startswith("`") else _SIGNS.sub(r"\\\1", part) for part in _CODE.split(text))


def code(text: object) -> str:
    """Format a text as code; empty for an empty text."""
    plain = str(text)
    return f"`{plain}`" if plain else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table; its cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def fence(text: str, language: str = "text") -> str:
    """Format a block of code."""
    return f"```{language}\n{text}\n```"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))
