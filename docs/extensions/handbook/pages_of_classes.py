"""Takes the page of a method or metric apart: its docstring, formula and parameters."""

import dataclasses
import inspect
import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from handbook.json_types import in_words
from handbook.markdown import code, escaped, fence, table

_PARAMETERS = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")


@dataclass(frozen=True)
class Docstring:
    """A docstring, taken apart.

    Attributes:
        sentence: its first line.
        formula: the lines of its formula; none if there is none.
        paragraphs: what follows, without the parameters.
        parameters: the meaning of each parameter.
    """

    sentence: str
    formula: tuple[str, ...]
    paragraphs: tuple[str, ...]
    parameters: dict[str, str]


def docstring(kind: type[Any]) -> Docstring:
    """Take the docstring of a class apart."""
    text, _, parameters = (inspect.getdoc(kind) or "").partition("\n\nParameters:\n")
    sentence, *paragraphs = text.split("\n\n")
    parameters, *after = parameters.split("\n\n", 1)
    paragraphs += after
    is_formula = bool(paragraphs) and re.match(r"^\S.* = ", paragraphs[0]) is not None
    formula = tuple(paragraphs[0].splitlines()) if is_formula else ()
    return Docstring(sentence, formula, tuple(paragraphs[is_formula:]), _meanings(parameters))


def prose(paragraphs: tuple[str, ...]) -> str:
    """Format the paragraphs of a docstring as Markdown."""
    return "\n\n".join(map(_paragraph, paragraphs))


def meanings(kind: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of its parameters."""
    return {name: text for base in reversed(kind.__mro__) for name, text in docstring(base).parameters.items()}


def parameter_table(kind: type[Any]) -> str:
    """Format the parameters of a class: values, default and meaning."""
    fields = dataclasses.fields(kind)
    if not fields:
        return "It has no parameters."
    schema = TypeAdapter(kind).json_schema()
    rows = [
        [
            code(field.name),
            in_words(schema["properties"].get(field.name, {}), schema.get("$defs", {})),
            _default(field),
            escaped(meanings(kind).get(field.name, "")),
        ]
        for field in fields
    ]
    return table(["parameter", "values", "default", "meaning"], rows)


def preset_table(presets: dict[str, dict[str, Any]]) -> str:
    """Format the named settings of a class."""
    rows = [
        [code(name), ", ".join(code(f"{key}: {_as_yaml(value)}") for key, value in preset.items()) or "the defaults"]
        for name, preset in presets.items()
    ]
    return table(["preset", "sets"], rows)


def _meanings(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        if match := _PARAMETERS.match(line):
            names = match[1].split(", ")
            found |= dict.fromkeys(names, match[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _paragraph(text: str) -> str:
    if text.startswith("|"):
        return text
    return fence(inspect.cleandoc(text)) if text.startswith(" ") else escaped(" ".join(text.split()))


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return code(_as_yaml(field.default))
    if field.default_factory is dataclasses.MISSING:
        return "none, it must be given"
    return code(_as_yaml(field.default_factory()))


def _as_yaml(value: object) -> str:
    """Format a value as a run file writes it."""
    return str(value) if isinstance(value, str) else json.dumps(value, default=str)
