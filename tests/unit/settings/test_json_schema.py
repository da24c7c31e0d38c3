"""The JSON Schema of the run file: every key has a meaning, and it accepts and refuses what the run file does."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from runfiles import SMALLEST
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.cams import METHODS
from pipeline.demo.data import run_file
from pipeline.metrics import METRICS
from pipeline.settings.data import Section
from pipeline.settings.json_schema import meanings, run_file_schema
from pipeline.settings.run_file import parse_config

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return run_file_schema()


def test_it_is_a_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_has_a_meaning_on_one_line(schema: dict[str, Any]) -> None:
    fields = [(name, key, field) for name, part in schema["$defs"].items() for key, field in part["properties"].items()]
    fields += [("RunConfig", key, field) for key, field in schema["properties"].items()]
    assert [(name, key) for name, key, field in fields if not field.get("description", "").endswith(".")] == []
    assert [key for _, key, field in fields if "\n" in field["description"]] == []
    assert len(fields) > 70


class Odd(Section):
    """A section."""

    first: int = 0
    """The first
    key."""
    second: int = 0


def test_meanings_are_those_below_the_fields() -> None:
    assert meanings(Odd) == {"first": "The first key."}


def accepts(schema: dict[str, Any], fields: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(fields))


def given(**sections: dict[str, Any]) -> dict[str, Any]:
    return {**SMALLEST, **{name: {**SMALLEST.get(name, {}), **values} for name, values in sections.items()}}


RIGHT = [
    SMALLEST,
    given(explain={"methods": ["gradcam", {"iscam": {"num_steps": 3}}, {"rise": None}, "mine.cams:Own"]}),
    given(explain={"metrics": ["insertion", {"deletion": {"steps": 9, "as": "short"}}], "targets": {"top": 5}}),
    given(explain={"targets": ["predicted", "label"]}, compute={"workers": "auto", "batch": 32}),
    given(data={"columns": ["path", "label"], "window": [0, 100], "sample": {"n": 5}}),
    given(data={"columns": {"label": "target"}}, model={"preprocess": {"crop": [100, 200], "mean": [0, 0, 0]}}),
    given(model={"layout": {"tokens": {"prefix": 1, "grid": [14, 14]}}, "arguments": {"any": [1]}}),
    {**SMALLEST, "data": {"manifest": "list.csv"}},
    given(data={"keys": ["a", {"shard": "s.tar", "image_key": "b"}]}),
    given(data={"keys": "keys.csv", "sample": None}),
]
WRONG = [
    {},
    given(data={"chunk_image": 3}),
    given(data={"manifest": "list.csv"}),
    given(data={"chunk_images": 0}),
    given(data={"keys": ["a"], "sample": {"n": 5}}),
    given(data={"keys": [{"shard": "s.tar"}]}),
    given(data={"keys": []}),
    given(explain={"methods": ["gradcan"]}),
    given(explain={"methods": [{"gradcam": {}, "iscam": {}}]}),
    given(explain={"metrics": ["insertions"]}),
    given(explain={"targets": "labelled"}),
    given(compute={"precision": "fp16"}),
    given(model={"layout": {"tokens": {}}}),
    given(output={"maps": "u16"}),
    {**SMALLEST, "extra": {}},
    {name: value for name, value in SMALLEST.items() if name != "output"},
]


@pytest.mark.parametrize("fields", RIGHT, ids=str)
def test_it_accepts_what_the_run_file_accepts(schema: dict[str, Any], fields: dict[str, Any]) -> None:
    assert parse_config(fields)[1] == []
    assert accepts(schema, fields)


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_it_refuses_a_wrong_key_or_value(schema: dict[str, Any], fields: dict[str, Any]) -> None:
    assert not accepts(schema, fields)


def test_it_accepts_the_run_files_of_the_project(schema: dict[str, Any], tmp_path: Path) -> None:
    files = [ROOT / "deploy" / "every_method.yaml", *(ROOT / "deploy" / "runs").rglob("*.yaml")]
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    runs = [fields for fields in found if isinstance(fields, dict) and "model" in fields] + [run_file(tmp_path)]
    assert len(runs) > 5
    for fields in runs:
        jsonschema.validate(json.loads(json.dumps(fields)), schema)


def test_every_method_and_metric_is_in_it(schema: dict[str, Any]) -> None:
    for name in METHODS:
        assert accepts(schema, given(explain={"methods": [name]})), name
    for name in METRICS:
        assert accepts(schema, given(explain={"metrics": [name]})), name


def test_the_verb_prints_it_or_writes_a_file(schema: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == schema
    written = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "s.json")])
    assert (written.exit_code, written.stdout) == (0, f"{tmp_path}/s.json\n")
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8")) == schema
    refused = CliRunner().invoke(app, ["schema", "--out", str(tmp_path / "none" / "s.json")])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "cannot write" in refused.stderr
