"""The generated reference is complete: every method and metric has a set formula, every key and option a meaning."""

import dataclasses
import re
import time

import pytest
from docs.commands import ROOT
from handbook import columns
from handbook.mathml import mathml
from handbook.methods_and_metrics import formulas
from handbook.pages_of_classes import docstring, meanings
from handbook.reference import PAGES
from handbook.run_file import keys
from handbook.verbs import verbs
from handmade import RunMaker

from jobs.support import console
from jobs.support.ending import Ended
from jobs.support.event_fields import EVENTS, SESSION, WARNINGS
from jobs.support.exit_codes import EXIT_CODES
from jobs.support.progress import Tally
from jobs.support.watch import session_fields
from pipeline import errors
from pipeline.cams import ADAPTERS, METHODS
from pipeline.data.account import LabelAccount
from pipeline.metrics import METRICS
from pipeline.results.atlas import ATLAS_VIEWS
from pipeline.results.summary import totals
from pipeline.telemetry.bottleneck import Environment, Session

KINDS = METHODS | ADAPTERS | METRICS


def test_every_method_and_metric_has_a_formula_and_no_other_has() -> None:
    assert set(formulas()) == set(KINDS)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_formula_can_be_set(name: str) -> None:
    for line in formulas()[name]:
        assert mathml(line, "block").startswith("<math")


@pytest.mark.parametrize("wrong", [r"\frac{1}", r"\sum_{k} \nocommand{x}", r"\left( x", r"a &= b"])
def test_a_mistake_in_a_formula_is_an_error(wrong: str) -> None:
    with pytest.raises(ValueError, match="cannot set"):
        mathml(wrong)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_letters_of_the_formula_are_those_of_the_docstring(name: str) -> None:
    page = docstring(KINDS[name])
    said = " ".join((*page.formula, *page.paragraphs))
    plain = re.sub(r"\\(?:operatorname|text)\{[^}]*\}|\\[a-zA-Z]+", " ", " ".join(formulas()[name]))
    unknown = {letter for letter in re.findall(r"[a-zA-Z]", plain) if letter not in said}
    assert unknown == set()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_parameter_of_a_method_or_metric_has_a_meaning(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(KINDS[name])}
    assert set(docstring(KINDS[name]).parameters) <= fields
    assert fields <= set(meanings(KINDS[name]))


def test_every_verb_and_option_has_a_meaning() -> None:
    silent = [
        f"{verb.name} {each.name}" for verb in verbs() for each in verb.command.params if not (each.help or each.name)
    ]
    assert silent == []
    assert all(verb.command.help for verb in verbs())


def test_every_key_of_the_run_file_has_a_section() -> None:
    page = PAGES["run-file"]()
    names = [key.name for key in keys()]
    assert {"data.shards", "data.columns.path", "model.preprocess.crop", "explain.seed"} <= set(names)
    assert [name for name in names if f"`{name}`" not in page] == []
    assert [key.name for key in keys() if not key.schema.get("description")] == []


def test_every_view_is_described_with_its_columns() -> None:
    assert set(columns.VIEWS) == set(ATLAS_VIEWS)
    found = {view: {name for name, _ in own} for view, own in columns.columns_of_views().items()}
    assert {"image_key", "method", "average_drop", "metadata", "model"} <= found["explanations"]
    assert {"correct", "maps"} <= found["images"]
    assert {"started_at", "folder"} <= found["runs"]


def test_events_have_the_fields_that_the_verb_emits(small_run: RunMaker) -> None:
    ended = Ended(path="run", **vars(totals(small_run.store)))
    assert set(ended.to_json()) - {"event", "time"} == set(EVENTS["end"].fields)
    assert set(Tally(None, 0).event()) == set(EVENTS["progress"].fields) == set(EVENTS["stopped"].fields)
    assert {field.name for field in dataclasses.fields(LabelAccount)} == set(EVENTS["labels"].fields)
    times = Session(time.monotonic).stage_times(Environment(1, 0, "cpu", "fp32"))
    assert set(session_fields(times) or ()) == set(SESSION)


def test_events_and_kinds_of_warnings_are_those_in_the_code() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "jobs").rglob("*.py"))
    assert set(re.findall(r'emit\(\s*"(\w+)"', source)) | {"end"} == set(EVENTS)
    assert set(re.findall(r'(?:kind=|_warn\()"(\w+)"', source)) == set(WARNINGS)


def test_every_exit_code_of_the_code_is_described() -> None:
    own = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    constants = {number for name, number in vars(console).items() if name.startswith("EXIT_")}
    assert own | constants | {0} == set(EXIT_CODES)
