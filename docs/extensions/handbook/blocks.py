"""Reads the blocks and code spans of a page, and the comments that say what to do with a block.

A comment stands on the line before its block:

    <!-- not run: a cluster -->   the tests do not run it, and this is why
    <!-- file: run.yaml -->       it is the content of this file in the folder of the page
    <!-- exit code: 6 -->         its last command ends with this code, not with 0

and anywhere on a page, before the block that needs it:

    <!-- with: my_run -->         a folder or names of Python that the tests provide, see tests/docs/provided.py
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token

COMMANDS = ("bash", "sh", "console")
PYTHON = "python"
_COMMENT = re.compile(r"<!--\s*(with|not run|file|exit code):\s*(.*?)\s*-->", re.DOTALL)
_DIRECTIVE = re.compile(r"^\{([\w-]+)\}")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the word after the fence; empty without one.
        text: what stands inside.
        line: the line of the fence, from 1.
        comments: the comments directly before it, by their word.
    """

    language: str
    text: str
    line: int
    comments: Mapping[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether it is a command or Python, which runs in the tests."""
        return self.language in (*COMMANDS, PYTHON) and "not run" not in self.comments


@dataclass(frozen=True)
class Span:
    """A code span in a sentence, and the line of its paragraph."""

    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page; directives of MyST are no blocks."""
    comments: dict[str, str] = {}
    for token in _tokens(page):
        if token.type == "html_block":
            comments |= dict(_COMMENT.findall(token.content))
        elif token.type == "fence" and not _DIRECTIVE.match(token.info):
            language = token.info.split()[0] if token.info.split() else ""
            yield Block(language, token.content, _line(token), comments)
            comments = {}
        elif token.type == "inline":
            comments = {name: text for name, text in comments.items() if name == "with"}


def spans(page: str) -> Iterator[Span]:
    """Yield the code spans of a page."""
    for token in _tokens(page):
        for child in token.children or ():
            if child.type == "code_inline":
                yield Span(child.content, _line(token))


def _tokens(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page)


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 1
