"""Names of methods and metrics are known without torch, from the text of their pages."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from pipeline.cams import ADAPTERS, METHODS, build_methods
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS, build_metrics, metric_fields
from pipeline.settings import names
from pipeline.settings.explain import ExplainConfig
from pipeline.settings.names import names_in, sentences_in, unknown_names
from pipeline.viewer.columns import Columns
from schemas.explanation import explanation_schema

WRONG: list[list[str | dict[str, Any]]] = [["gradcm"], ["gradcam", {"iskam": {"steps": 3}}], ["zzz"]]


def test_the_pages_name_what_the_registries_hold() -> None:
    assert names_in("cams") == METHODS.keys() | ADAPTERS.keys()
    assert names_in("metrics") == METRICS.keys()


@pytest.mark.parametrize("specs", WRONG)
def test_a_wrong_name_is_reported_as_by_the_registry(specs: list[str | dict[str, Any]]) -> None:
    with pytest.raises(ConfigError) as methods:
        build_methods(specs)
    assert tuple(unknown_names(ExplainConfig(methods=specs))) == methods.value.mistakes
    with pytest.raises(ConfigError) as metrics:
        build_metrics(["avrage_drop"])
    assert tuple(unknown_names(ExplainConfig(metrics=["avrage_drop"]))) == metrics.value.mistakes


def test_entries_that_the_registry_must_judge_are_left_to_it() -> None:
    assert not list(unknown_names(ExplainConfig(methods=[{}, {"gradcam": {}, "iscam": {}}, {"iscam": {"no": 1}}])))


def test_without_sources_nothing_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(names, "__file__", str(tmp_path / "pipeline" / "settings" / "names.py"))
    assert not list(unknown_names(ExplainConfig(methods=["gradcm"])))


def test_first_sentences_are_those_of_the_classes() -> None:
    expected = {name: (inspect.getdoc(kind) or "").partition("\n")[0] for name, kind in METRICS.items()}
    assert {name: sentences_in("metrics").get(name) for name in METRICS} == expected


def test_the_viewer_says_what_a_metric_measures() -> None:
    (field,) = metric_fields({"mine": METRICS["insertion"]()})
    schema = explanation_schema([field])
    assert Columns.of(schema).known["mine"].meaning == (
        "Area under the confidence curve while pixels are inserted into a blurred image, most relevant first. "
        "Higher is better."
    )
