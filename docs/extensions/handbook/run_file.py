"""The reference of the run file, from its JSON Schema."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from handbook.json_types import Schema, alternatives, default_of, in_words, resolved
from handbook.markdown import escaped
from pipeline.settings.json_schema import run_file_schema


@dataclass(frozen=True)
class Key:
    """A key of the run file.

    Attributes:
        name: with its sections, such as `data.columns.path`.
        schema: its values.
        required: whether it must be given.
    """

    name: str
    schema: Schema
    required: bool

    @property
    def depth(self) -> int:
        """Return the number of sections around the key."""
        return self.name.count(".")

    @property
    def is_open(self) -> bool:
        """Whether it holds keys of the user's."""
        definitions = schema_of_run_file().get("$defs", {})
        return any(
            choice.get("additionalProperties") not in (None, False) for choice in alternatives(self.schema, definitions)
        )


@cache
def schema_of_run_file() -> dict[str, Any]:
    """Return the JSON Schema of the run file."""
    return run_file_schema()


def keys() -> Iterator[Key]:
    """Yield every key, section by section, with the keys inside it after it."""
    schema = schema_of_run_file()
    yield from _inside(schema, "", schema.get("$defs", {}))


def page() -> str:
    """Write the page."""
    definitions = schema_of_run_file().get("$defs", {})
    return "\n".join(_section(key, definitions) for key in keys())


def _inside(schema: Schema, before: str, definitions: Schema) -> Iterator[Key]:
    for name, field in schema.get("properties", {}).items():
        key = Key(f"{before}{name}", field, name in schema.get("required", ()))
        yield key
        for choice in alternatives(field, definitions):
            yield from _inside(choice, f"{key.name}.", definitions)


def _section(key: Key, definitions: Schema) -> str:
    described = {**resolved(key.schema, definitions), **key.schema}
    meaning = escaped(" ".join(described.get("description", "").split()))
    lines = [f"({key.name})=", f"{'#' * min(4, key.depth + 2)} {_title(key)}", "", meaning, ""]
    if key.depth:
        facts = {"Values": in_words(key.schema, definitions), "Default": _default(key)}
        lines += [f"* {name}: {fact}" for name, fact in facts.items() if fact]
    return "\n".join([*lines, ""])


def _title(key: Key) -> str:
    return f"`{key.name}`" if key.depth else f"The section `{key.name}`"


def _default(key: Key) -> str:
    return "none, it must be given" if key.required else default_of(key.schema) or "none"
