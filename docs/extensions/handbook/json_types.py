"""Names types of a JSON Schema in words, as tables of keys and parameters show them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_NAMES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true` or `false`"}
_PLURALS = {"text": "texts", "whole number": "whole numbers", "number": "numbers"}
_MOST_LISTED = 12
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
}


def resolved(schema: Schema, definitions: Schema) -> Schema:
    """Follow a reference to the definitions; other schemas are returned as they are."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    return schema


def alternatives(schema: Schema, definitions: Schema) -> Iterator[Schema]:
    """Yield the types that a value may have."""
    schema = resolved(schema, definitions)
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if not choices or "properties" in schema:  # beside its keys, a schema may say which of them exclude each other
        yield schema
        return
    for choice in choices:
        yield from alternatives(choice, definitions)


def in_words(schema: Schema, definitions: Schema) -> str:
    """Describe the values that a schema allows, as Markdown."""
    words = dict.fromkeys(_one(choice, definitions) for choice in alternatives(schema, definitions))
    return " or ".join(word for word in words if word)


def default_of(schema: Schema) -> str:
    """Format the default of a value, as YAML writes it; empty where there is none."""
    default = schema.get("default")
    if isinstance(default, dict):
        return "those of its keys" if any(value is not None for value in default.values()) else ""
    return "" if default in (None, "") else f"`{json.dumps(default) if not isinstance(default, str) else default}`"


def _one(schema: Schema, definitions: Schema) -> str:
    if schema.get("type") == "null":
        return ""
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        listed = ", ".join(f"`{_plain(value)}`" for value in values)
        return listed if len(values) <= _MOST_LISTED else f"one of {len(values)} names"
    if schema.get("type") == "array":
        return _array(schema, definitions)
    if schema.get("type") == "object":
        return _object(schema)
    if schema.get("pattern", "").startswith(r"^[\w.]+:"):
        return "`package.module:NAME`"
    name = _NAMES.get(schema.get("type", ""), "any value")
    limits = [words.format(schema[key]) for key, words in _LIMITS.items() if key in schema]
    return f"{name}, {', '.join(limits)}" if limits else name


def _array(schema: Schema, definitions: Schema) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(in_words(item, definitions) for item in schema['prefixItems'])}]"
    inner = in_words(schema.get("items", {}), definitions)
    name = next((name for name in _PLURALS if inner.startswith(name)), "")
    return f"a list of {_PLURALS.get(name, '')}{inner.removeprefix(name)}"


def _object(schema: Schema) -> str:
    keys = ", ".join(f"`{key}`" for key in schema.get("properties", ()))
    return f"a mapping with {keys}" if keys else "a mapping"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
