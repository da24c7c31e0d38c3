"""The JSON Schema of the run file, by which editors complete and check its keys.

The meaning of a key is the text below its field, in the source. Pydantic would read it whenever a section is imported,
which each start of the command would pay for.
"""

import ast
import inspect
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from pipeline.settings.about import AboutConfig
from pipeline.settings.data import Section
from pipeline.settings.entry_points import METHOD_GROUP, METRIC_GROUP, entries
from pipeline.settings.names import names_in
from pipeline.settings.run_file import RunConfig

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLUGIN = r"^[\w.]+:[\w.]+$"
"""`package.module:Class`."""
_SPECS = {"methods": ("cams", METHOD_GROUP), "metrics": ("metrics", METRIC_GROUP)}


class _Untitled(GenerateJsonSchema):
    """Leaves out titles, which only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - a schema of pydantic
        return False


def run_file_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the run file; what only the data or the model can decide is not in it."""
    schema = RunConfig.model_json_schema(schema_generator=_Untitled)
    sections = schema["$defs"]
    _describe(schema, RunConfig)
    kinds: list[type[BaseModel]] = [*Section.__subclasses__(), AboutConfig]
    for kind in kinds:
        _describe(sections.get(kind.__name__, {}), kind)
    for key, (package, group) in _SPECS.items():
        names = sorted({*names_in(package), *entries(group)})
        sections["ExplainConfig"]["properties"][key]["items"] = _spec(names)
    data = sections["DataConfig"]
    data["oneOf"] = [{"required": ["shards"]}, {"required": ["manifest"]}]
    given = {"not": {"type": "null"}}
    data["not"] = {"required": ["keys", "sample"], "properties": {"keys": given, "sample": given}}
    _allow(data["properties"]["columns"], {"type": "array", "items": {"type": "string"}, "minItems": 1})
    return {"$schema": _DIALECT, **schema, "title": "The run file of camatlas"}


def _spec(names: list[str]) -> dict[str, Any]:
    """Return the schema of one method or metric: a name, or {name: {parameter: value}}."""
    name = {"anyOf": [{"enum": names}, {"type": "string", "pattern": _PLUGIN}]} if names else {"type": "string"}
    with_parameters = {
        "type": "object",
        "propertyNames": name,
        "additionalProperties": {"type": ["object", "null"]},
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [name, with_parameters]}


def _allow(field: dict[str, Any], other: dict[str, Any]) -> None:
    """Let a field be of another type, too; its description stays beside both."""
    field["anyOf"] = [{"$ref": field.pop("$ref")}, other]


def _describe(schema: dict[str, Any], kind: type[BaseModel]) -> None:
    """Add the meaning of each key of a section."""
    for key, text in meanings(kind).items():
        schema.get("properties", {}).get(key, {})["description"] = text


def meanings(kind: type[BaseModel]) -> dict[str, str]:
    """Return the texts below the fields of a section, each on one line, by key."""
    (section,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(section, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(section.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
