"""Writes generated files."""

from pathlib import Path


def write_if_changed(file: Path, text: str) -> None:
    """Write a file if its text has changed; otherwise it keeps its time, so that Sphinx does not read it again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
