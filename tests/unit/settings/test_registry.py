"""Building methods and metrics from a run file."""

from typing import Any

import pytest

from pipeline.cams import METHODS, build_methods
from pipeline.cams.gradient import GradCam
from pipeline.cams.path import IntegratedGradCam
from pipeline.cams.score import IsCam, ScoreCam
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS, build_metrics, metric_fields
from pipeline.metrics.faithfulness import AverageDrop, Increase
from pipeline.settings.registry import parameters
from schemas.explanation import explanation_schema


def mistakes_of(specs: list[Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_methods(specs)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_built_by_its_name(name: str) -> None:
    (built,) = build_methods([name]).items()
    assert built == (name, METHODS[name]())


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_built_by_its_name(name: str) -> None:
    (built,) = build_metrics([name]).items()
    assert built == (name, METRICS[name]())


@pytest.mark.parametrize(
    ("name", "preset"), [(name, preset) for name, kind in METHODS.items() for preset in kind.presets]
)
def test_every_preset_sets_its_parameters(name: str, preset: str) -> None:
    (method,) = build_methods([{name: {"preset": preset}}]).values()
    assert method == METHODS[name](**METHODS[name].presets[preset])


def test_parameters_go_on_top_of_a_preset() -> None:
    (method,) = build_methods([{"scorecam": {"preset": "v2", "score": "logit"}}]).values()
    assert method == ScoreCam(channel_softmax=True, score="logit")


def test_using_a_preset_does_not_change_it() -> None:
    before = dict(ScoreCam.presets["v2"])
    build_methods([{"scorecam": {"preset": "v2", "score": "logit"}}])
    assert ScoreCam.presets["v2"] == before


def test_variants_of_one_method_get_their_own_names_and_keep_their_order() -> None:
    built = build_methods(["iscam", {"iscam": {"schedule": "linear", "as": "iscam_linear"}}, {"gradcam": None}])
    assert list(built) == ["iscam", "iscam_linear", "gradcam"]
    assert built["iscam_linear"] == IsCam(schedule="linear")


def test_objects_are_used_unchanged() -> None:
    method = IntegratedGradCam(steps=7)
    assert build_methods([method, GradCam()]) == {"integrated_gradcam": method, "gradcam": GradCam()}


def test_an_object_and_its_name_count_as_the_same_name_twice() -> None:
    assert mistakes_of(["gradcam", GradCam()]) == [
        "explain.methods: 'gradcam' is listed twice (give the second one a name: {as: ...})"
    ]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    assert mistakes_of(["gradcan"]) == ["explain.methods: unknown name 'gradcan' (did you mean 'gradcam'?)"]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Grad-CAM", "gradcam"),
        ("Grad-CAM++", "gradcam_pp"),
        ("GradCAM++", "gradcam_pp"),
        ("Smooth Grad-CAM++", "smooth_gradcam_pp"),
        ("Score-CAM", "scorecam"),
        ("IS-CAM", "iscam"),
        ("Integrated Grad-CAM", "integrated_gradcam"),
    ],
)
def test_a_name_as_papers_spell_it_is_refused_with_the_one_that_is_meant(written: str, name: str) -> None:
    assert mistakes_of([written]) == [f"explain.methods: unknown name '{written}' (did you mean '{name}'?)"]


def test_an_unknown_parameter_is_refused_with_the_nearest() -> None:
    assert mistakes_of([{"iscam": {"num_step": 3}}]) == [
        "explain.methods.iscam: unknown parameter 'num_step' (did you mean 'num_steps'?)"
    ]


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    assert mistakes_of([{"scorecam": {"preset": "author"}}]) == [
        "explain.methods.scorecam: unknown preset 'author' (did you mean 'authors'?)"
    ]
    assert mistakes_of([{"gradcam": {"preset": "x"}}]) == [
        "explain.methods.gradcam: unknown preset 'x' (it has no presets)"
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iscam", {"num_steps": 0}),
        ("iscam", {"num_steps": "ten"}),
        ("iscam", {"schedule": "linea"}),
        ("integrated_gradcam", {"baseline": None}),
        ("integrated_gradcam", {"subtract_baseline_features": 3}),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(name: str, options: dict[str, Any]) -> None:
    ((parameter, value),) = options.items()
    (mistake,) = mistakes_of([{name: options}])
    assert mistake.startswith(f"explain.methods.{name}.{parameter}: ")
    assert mistake.endswith(f"got {value!r}")


@pytest.mark.parametrize("spec", [3, None, [], ["gradcam"], {}, {"gradcam": {}, "iscam": {}}, {"gradcam": 5}, GradCam])
def test_a_spec_that_is_not_a_method_is_refused(spec: object) -> None:
    (mistake,) = mistakes_of([spec])
    assert "neither a name nor {name: {parameter: value}}" in mistake


@pytest.mark.parametrize("label", ["", "a b", "1st", "a-b", "a;b", "a'b", 'a"b', "a]b", "a\0b", None, 5, ["x"]])
def test_a_label_that_is_not_a_plain_name_is_refused(label: object) -> None:
    (mistake,) = mistakes_of([{"gradcam": {"as": label}}])
    assert "is not a name (at most 63 letters a-z, digits and _, no digit first)" in mistake


@pytest.mark.parametrize(
    "options", [{1: 2}, {None: 2}, {"preset": ["v2"]}, {"preset": {}}, {"name": "x"}, {"paper": "x"}]
)
def test_options_of_unusual_types_are_refused_with_a_message(options: dict[Any, Any]) -> None:
    (mistake,) = mistakes_of([{"scorecam": options}])
    assert mistake.startswith("explain.methods.scorecam: unknown ")


def test_all_mistakes_are_reported_at_once() -> None:
    wrong = ["gradcan", {"iscam": {"num_steps": 0, "schedul": "linear"}}, 7, "gradcam", "gradcam"]
    found = mistakes_of(wrong)
    assert len(found) == 5
    assert all(any(word in mistake for mistake in found) for word in ("gradcan", "num_steps", "schedul", "7", "twice"))


def test_parameters_name_the_method_and_list_all_of_its_fields() -> None:
    assert parameters(IntegratedGradCam(steps=3)) == {
        "name": "integrated_gradcam",
        "steps": 3,
        "rule": "right",
        "baseline": "black",
        "subtract_baseline_features": True,
    }


@pytest.mark.parametrize("thing", [GradCam, "gradcam", object()])
def test_parameters_of_other_objects_are_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="not a method or metric"):
        parameters(thing)


def test_the_same_metric_may_be_used_twice() -> None:
    built = build_metrics(["average_drop", {"average_drop": {"fill": "black", "as": "drop_black"}}, Increase()])
    assert built == {"average_drop": AverageDrop(), "drop_black": AverageDrop(fill="black"), "increase": Increase()}
    assert [field.name for field in metric_fields(built)] == ["average_drop", "drop_black", "increase"]


@pytest.mark.parametrize("label", [*explanation_schema().names, "images", "Shard", "ERROR_CODE", "Images"])
def test_a_metric_may_not_be_named_like_another_column(label: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_metrics([{"average_drop": {"as": label}}])
    (mistake,) = caught.value.mistakes
    assert mistake.where == "explain.metrics"
    assert mistake.what == f"'{label}' is the name of another column"


def test_metrics_that_differ_only_in_case_are_refused_because_sql_ignores_case() -> None:
    with pytest.raises(ConfigError) as caught:
        build_metrics(["increase", {"average_drop": {"as": "Drop"}}, {"average_drop": {"as": "drop"}}])
    assert [mistake.what for mistake in caught.value.mistakes] == [
        "'Drop' is the name of another column",
        "'drop' is the name of another column",
    ]


def test_a_method_may_be_named_like_a_column_because_it_is_a_value() -> None:
    assert list(build_methods([{"gradcam": {"as": "shard"}}])) == ["shard"]
