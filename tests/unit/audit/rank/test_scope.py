"""What runs have in common: methods and metrics that are left out are named, and too little is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ranked import Table, valued_run

from pipeline.audit.rank.families import FAMILIES, OTHER, family_of
from pipeline.audit.rank.members import load_members
from pipeline.audit.rank.notes import notes_of
from pipeline.audit.rank.scope import Scope, scope_of
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS

NAN = float("nan")


def table_of(methods: str, *metrics: str, images: int = 4) -> Table:
    """Values in which the first method is the best by every metric, and the last one the worst."""
    signs = {name: -1 if METRICS[name].better == "lower" else 1 for name in metrics}
    return {
        name: {method: [sign * -0.1 * place] * images for place, method in enumerate(methods)}
        for name, sign in signs.items()
    }


def scope_and_notes(
    folder: Path, runs: Sequence[tuple[Table, dict[str, Any]]], methods: Sequence[str] = (), metrics: Sequence[str] = ()
) -> tuple[Scope, list[str]]:
    paths = [
        valued_run(folder / f"run{place}", table, **{"model": f"model-{place}"} | changes)
        for place, (table, changes) in enumerate(runs)
    ]
    members = load_members(paths)
    scope = scope_of(members, methods, metrics)
    return scope, notes_of(members, scope)


def refusal(folder: Path, *tables: Table, **wanted: Sequence[str]) -> str:
    with pytest.raises(ConfigError) as error:
        scope_and_notes(folder, [(table, {}) for table in tables], **wanted)
    return str(error.value)


def test_every_metric_has_a_family() -> None:
    assert [name for name in METRICS if family_of(name) == OTHER] == []
    assert family_of("package.module:Metric") == OTHER
    assert {family_of(name) for name in METRICS} <= set(FAMILIES)


def test_methods_and_metrics_of_some_runs_are_left_out_and_named(tmp_path: Path) -> None:
    scope, notes = scope_and_notes(
        tmp_path, [(table_of("abc", "insertion", "road"), {}), (table_of("bcd", "insertion", "deletion"), {})]
    )
    assert scope.methods == ("b", "c")
    assert [metric.label for metric in scope.metrics] == ["insertion"]
    assert notes == [
        "not compared: method a: only in run0",
        "not compared: method d: only in run1",
        "not compared: metric road: only in run0",
        "not compared: metric deletion: only in run1",
    ]


def test_metrics_without_order_are_left_out_and_named(tmp_path: Path) -> None:
    table = dict(table_of("ab", "insertion", "sparsity", "entropy"))
    table["my_metric"] = {"a": [1.0] * 4, "b": [2.0] * 4}
    scope, notes = scope_and_notes(tmp_path, [(table, {})])
    assert [metric.label for metric in scope.metrics] == ["insertion"]
    assert notes == [
        "not compared: metrics entropy and sparsity: no value is better than another",
        "not compared: metric my_metric: it is not known which values are better",
    ]


def test_the_manifest_says_which_way_is_better_for_a_plug_in(tmp_path: Path) -> None:
    table: Table = {"mine": {"a": [1.0, 1.0], "b": [2.0, 2.0]}}
    scope, _ = scope_and_notes(tmp_path, [(table, {"params": {"mine": {"plugin": {"better": "lower"}}}})])
    assert (scope.metrics[0].better, scope.metrics[0].family) == ("lower", OTHER)


def test_a_name_with_two_meanings_is_left_out(tmp_path: Path) -> None:
    table = table_of("abc", "insertion")
    scope, notes = scope_and_notes(tmp_path, [(table, {}), (table, {"methods_of": {"b": "gradcam"}})])
    assert scope.methods == ("a", "c")
    assert notes == ["not compared: method b: the runs use this name for b and gradcam"]


def test_algorithms_of_captum_are_different_methods(tmp_path: Path) -> None:
    table = table_of("abc", "insertion")
    runs = [(table, {"methods_of": {"b": "captum"}, "algorithm": name}) for name in ("Lime", "Occlusion")]
    scope, notes = scope_and_notes(tmp_path, runs)
    assert scope.methods == ("a", "c")
    assert notes == ["not compared: method b: the runs use this name for captum Lime and captum Occlusion"]


def test_a_method_that_always_fails_is_left_out_instead_of_emptying_every_metric(tmp_path: Path) -> None:
    table = {"insertion": {"a": [0.2] * 4, "b": [0.1] * 4, "c": [NAN] * 4}}
    scope, notes = scope_and_notes(tmp_path, [(table, {})])
    assert scope.methods == ("a", "b")
    assert notes == ["not compared: method c: it has no value in run0"]


def test_a_metric_that_a_method_lacks_is_left_out(tmp_path: Path) -> None:
    table = dict(table_of("ab", "insertion")) | {"coherency": {"a": [0.5] * 4, "b": [NAN] * 4}}
    table["road"] = {"a": [0.5, 0.5, NAN, NAN], "b": [NAN, NAN, 0.5, 0.5]}
    table["pointing_game"] = {"a": [NAN] * 4, "b": [NAN] * 4}
    scope, notes = scope_and_notes(tmp_path, [(table, {})])
    assert [metric.label for metric in scope.metrics] == ["insertion"]
    assert notes == [
        "not compared: metric road: in run0, no image has a value of every method",
        "not compared: metric coherency: in run0, b has no value",
        "not compared: metric pointing_game: in run0, no method has a value",
    ]


def test_a_control_is_recognised_by_what_it_is(tmp_path: Path) -> None:
    scope, _ = scope_and_notes(tmp_path, [(table_of("ab", "insertion"), {"methods_of": {"b": "shuffled_gradcam"}})])
    assert scope.controls == {"b"}


def test_methods_and_metrics_can_be_chosen(tmp_path: Path) -> None:
    scope, _ = scope_and_notes(tmp_path, [(table_of("abc", "insertion", "road"), {})], ["c", "a"], ["road"])
    assert (scope.methods, [metric.label for metric in scope.metrics]) == (("a", "c"), ["road"])


def test_an_unknown_choice_is_refused(tmp_path: Path) -> None:
    table, other = table_of("abc", "insertion"), table_of("ab", "insertion")
    message = refusal(tmp_path, table, other, methods=["c"])
    assert message == "--methods: 'c' is not in all runs: method c: only in run0 (known: a, b)"
    assert "--metrics: 'insertoin'" in refusal(tmp_path / "2", table, metrics=["insertoin"])


def test_runs_with_too_little_in_common_are_refused_with_the_reasons(tmp_path: Path) -> None:
    assert refusal(tmp_path, table_of("ab", "road"), table_of("bc", "road")) == (
        "RUN: the runs have fewer than two methods in common, and ranks need at least two "
        "(method a: only in run0; method c: only in run1)"
    )
    assert refusal(tmp_path / "2", table_of("ab", "road"), table_of("ab", "deletion")) == (
        "RUN: the runs have no metric in common that can rank methods "
        "(metric road: only in run0; metric deletion: only in run1)"
    )
    assert refusal(tmp_path / "3", table_of("ab", "sparsity")) == (
        "RUN: 'run0' has no metric that can rank methods (metric sparsity: no value is better than another)"
    )
    assert refusal(tmp_path / "4", table_of("a", "road")) == (
        "RUN: 'run0' has fewer than two methods, and ranks need at least two"
    )


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    path = valued_run(tmp_path / "one", table_of("ab", "road"))
    with pytest.raises(ConfigError, match=r"RUN: '.*one' and '.*one/' are the same run, which would count twice"):
        load_members([path, f"{path}/"])


def test_what_a_reader_must_know_is_said(tmp_path: Path) -> None:
    table, fewer = table_of("ab", "insertion"), table_of("ab", "insertion", images=3)
    _, notes = scope_and_notes(
        tmp_path,
        [
            (table, {"model": "net", "weights": "random", "chunks": 5}),
            (fewer, {"model": "net", "targets": "label", "params": {"insertion": {"steps": 224}}, "constant": ["b"]}),
        ],
    )
    assert notes == [
        "run0 is incomplete: 1 of 5 chunks, and its ranks are of these chunks alone",
        "the model of run0 has random weights: such ranks say nothing about methods",
        "run0 and run1 explain the same model, net: it counts twice, and their spread is not one over models",
        "the runs explain different images (run0 4, run1 3; 3 in all of them): each ranks the methods on its own, so a "
        "spread over models may come from the images",
        "the runs differ in targets: run0 predicted, run1 label",
        "insertion has different parameters in run0 and run1: steps 20 against 224",
        "many maps of run1 are constant and show nothing, which some metrics reward: b 100 %",
    ]


def test_a_metric_that_rests_on_few_images_is_named(tmp_path: Path) -> None:
    table = dict(table_of("ab", "insertion")) | {"pointing_game": {"a": [1.0, NAN, NAN, NAN], "b": [0.0] * 4}}
    _, notes = scope_and_notes(tmp_path, [(table, {})])
    assert notes == ["in run0, few of the 4 images have a value of every method: pointing_game 1"]
