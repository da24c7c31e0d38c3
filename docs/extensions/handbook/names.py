"""Finds names on a page that nothing has: keys, verbs, options, paths, columns, methods, metrics."""

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from handbook.blocks import COMMANDS, Block, blocks, spans
from handbook.run_file_blocks import mistakes
from handbook.vocabulary import Vocabulary

_SECTIONS = ("data", "model", "explain", "compute", "output", "about")
_KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(_SECTIONS)})(?:\.[a-z_]\w*)+(?![\w(/\[])")
_PATH = re.compile(r"(?<![\w/.:-])(?:tests|pipeline|jobs|schemas|deploy|docs|camatlas)/[\w./*-]*[\w*]")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_WORD = re.compile(r"(?<![\w./-])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![\w/])")
_FILE = re.compile(
    r"\.(?:py|md|yaml|csv|tsv|json|jsonl|txt|png|jpg|tar|parquet|safetensors|pt|pth|toml|html|db|tf|xml|cls|yml)$"
)


@dataclass(frozen=True)
class Problem:
    """A name that nothing has, or a block without a language."""

    line: int
    text: str


def problems(page: str, known: Vocabulary) -> Iterator[Problem]:
    """Yield what is wrong on a page."""
    for span in spans(page):
        yield from (Problem(span.line, text) for text in _in_span(span.text, known))
    for block in blocks(page):
        yield from (Problem(block.line, text) for text in _in_block(block, known))


def _in_block(block: Block, known: Vocabulary) -> Iterator[str]:
    if not block.language:
        yield "a block without a language: write bash, python, yaml or, for output, text after the fence"
    if block.language in COMMANDS:
        for line in re.sub(r"\\\n", " ", block.text).splitlines():
            yield from _commands(line.removeprefix("$ "), known)
    if block.language == "yaml":
        yield from mistakes(block.text)


def _in_span(text: str, known: Vocabulary) -> Iterator[str]:
    yield from _commands(text, known)
    yield from _unknown("key of the run file", _KEY.findall(_without_paths(text)), known.keys, known.open_keys)
    yield from (f"no file '{path}' in this project" for path in _PATH.findall(text) if not _exists(path, known))
    if text.startswith("--"):
        options = {option for each in known.verbs.values() for option in each} | known.options
        yield from _unknown("option of any verb", _OPTION.findall(text)[:1], options)
    yield from _unknown("name", _WORD.findall(_without_paths(text)), known.words)


def _commands(text: str, known: Vocabulary) -> Iterator[str]:
    """Check the verb and the options of a command."""
    words = _words(text)
    if words[:1] != ["camatlas"] or len(words) == 1:
        return
    verb = next((name for name in (" ".join(words[1:3]), words[1]) if name in known.verbs), "")
    groups = {name.split()[0] for name in known.verbs}
    if not verb and words[1].startswith("-"):
        yield from _unknown("option of camatlas", words[1:2], known.options)
    elif not verb and (words[1] not in groups or len(words) > 2) and not words[1].isupper():
        yield from _unknown("verb", [" ".join(words[1:3]) if words[1] in groups else words[1]], known.verbs)
    elif verb:
        given = [word.partition("=")[0] for word in words[2:] if _OPTION.match(word)]
        yield from _unknown(f"option of `camatlas {verb}`", given, known.verbs[verb])


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # a quote is not closed: the rest stands on further lines
        return text.split()


def _unknown(noun: str, found: Iterable[str], names: Iterable[str], open_names: Iterable[str] = ()) -> Iterator[str]:
    """Say of each name that nothing has it, and name the nearest one."""
    for name in found:
        inside_open = any(name.startswith(f"{prefix}.") for prefix in open_names)
        if name in names or inside_open:
            continue
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        yield f"no {noun} '{name}'{hint}"


def _exists(path: str, known: Vocabulary) -> bool:
    return any(known.root.glob(path))


def _without_paths(text: str) -> str:
    """Leave out words with a slash or a suffix of a file: they are paths, also of the user's."""
    words = re.split(r"(\s+|[(),\[\]{}'\"=:])", text)
    return "".join(word for word in words if "/" not in word and not _FILE.search(word))
