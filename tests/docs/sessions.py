"""Runs the blocks of a page, one after another, in a folder of its own."""

import sys
from pathlib import Path
from types import ModuleType

from docs.commands import commands, run
from docs.provided import PROVIDED
from handbook.blocks import COMMANDS, PYTHON, Block


class Session:
    """One page in the working folder, which is empty at first.

    Args:
        page: its name, for messages.
    """

    def __init__(self, page: str) -> None:
        self._page, self._written = page, set[str]()
        self._module = ModuleType("session_of_a_page")
        sys.modules[self._module.__name__] = self._module  # classes of a page are looked up there

    def do(self, block: Block) -> None:
        """Provide what a block needs, write its file, and run it."""
        for name in filter(None, map(str.strip, block.comments.get("with", "").split(","))):
            assert name in PROVIDED, f"{self._page}:{block.line}: nothing provides '{name}'"
            vars(self._module).update(PROVIDED[name]())
        if file := block.comments.get("file"):
            self._write(file, block.text)
        if block.runs:
            self._run(block)

    def _write(self, name: str, text: str) -> None:
        """Write a file; a second block of the same name continues it."""
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") + "\n\n" if name in self._written else ""
        path.write_text(before + text, encoding="utf-8")
        self._written.add(name)

    def _run(self, block: Block) -> None:
        if block.language == PYTHON:
            place = f"{self._page}:{block.line}"
            exec(compile("\n" * block.line + block.text, place, "exec"), vars(self._module))
            return
        assert block.language in COMMANDS
        *first, last = commands(block.text, console=block.language == "console")
        for command in first:
            self._expect(command, 0, block)
        self._expect(last, int(block.comments.get("exit code", 0)), block)

    def _expect(self, command: str, code: int, block: Block) -> None:
        ended = run(command)
        assert ended == code, f"{self._page}:{block.line}: exit code {ended} instead of {code}: {command}"
