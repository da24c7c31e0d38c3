"""Methods and metrics of the user's: how they are found, what is wrong with them in one sentence, and their digests."""

# ruff: noqa: E501 - plug-ins of users are seldom annotated; a mistake is one line

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic.dataclasses
import pytest
from plugin_module import mistakes_of, working_folder

import camatlas
from pipeline.cams import METHODS, build_methods
from pipeline.cams.gradient import GradCam
from pipeline.metrics import build_metrics, metric_fields, reads_boxes, reads_parts
from pipeline.settings.plugins import default_label
from pipeline.settings.registry import parameters


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from working_folder(tmp_path, monkeypatch)


@pytest.mark.usefixtures("folder")
def test_a_class_is_found_from_the_working_folder_with_its_parameters() -> None:
    built = build_methods(
        ["gradcam", "cams_of_mine:MyCam", {"cams_of_mine:MyCam": {"power": 2, "cells": [3], "as": "squared"}}]
    )
    assert list(built) == ["gradcam", "my_cam", "squared"]
    fields = parameters(built["squared"])
    assert len(fields.pop("plugin")["sha256"]) == 64
    assert fields == {"name": "cams_of_mine:MyCam", "power": 2.0, "cells": (3,)}
    assert type(fields["power"]) is float
    assert build_methods([{"cams_of_mine:MyCam": {"preset": "square"}}])["my_cam"].thing.power == 2.0  # type: ignore[attr-defined]
    assert built["my_cam"].needs == camatlas.Needs()


@pytest.mark.usefixtures("folder")
def test_a_metric_is_a_column_with_its_unit_and_direction() -> None:
    built = build_metrics(["average_drop", {"cams_of_mine:Peak": {"as": "top"}}])
    (_, top) = metric_fields(built)
    assert (top.name, top.metadata[b"unit"]) == ("top", b"[0, 1]")
    assert top.metadata[b"meaning"] == b"cams_of_mine:Peak, higher is better"
    assert parameters(built["top"])["plugin"].items() >= {"better": "higher", "unit": "[0, 1]", "reads": "map"}.items()
    assert not reads_boxes(built["top"])
    assert not reads_parts(built["top"])


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cams_of_mine:MyCma", "has no 'MyCma' (did you mean 'MyCam'?)"),
        ("cam_of_mine:MyCam", "there is no module 'cam_of_mine'"),
        ("unused_of_mine:MyCam", "raised ZeroDivisionError: division by zero (unused_of_mine.py:1)"),
        ("cams_of_mine:function", "is a function; a method is a class, a frozen dataclass"),
        ("cams_of_mine:made", "is an object of MyCam; a method is a class"),
        ("cams_of_mine:number", "is an object of int; a method is a class"),
        ("cams_of_mine:Plain", "is no dataclass: write @dataclass(frozen=True) above the class"),
        ("cams_of_mine:Mutable", "can be changed after it was made: write @dataclass(frozen=True)"),
        ("cams_of_mine:Silent", "cannot be called: a method has a function __call__ that takes (evidence, probe)"),
        ("cams_of_mine:Other", "has a __call__ with the signature (self, image)"),
        ("cams_of_mine:Needless", "does not say what it needs: derive it from camatlas.BaseMethod"),
        ("cams_of_mine:WrongNeeds", "has needs of the type dict: set needs = camatlas.Needs(...)"),
        ("cams_of_mine:Reserved", "has a parameter 'name', which means something else here"),
        ("cams_of_mine:Named", "'gradcam' is the name of a method of camatlas"),
    ],
)
def test_what_is_no_method_is_one_sentence(name: str, words: str) -> None:
    (mistake,) = mistakes_of(name)
    assert words in mistake
    assert mistake.startswith("explain.methods")


@pytest.mark.usefixtures("folder")
def test_what_is_no_metric_is_told_at_once() -> None:
    found = mistakes_of("cams_of_mine:Aimless", metrics=True)
    for words in ("'better' is 'up'", "'reads' is 'pixels'", "truth = 'masks'", "unit of its values"):
        assert sum(words in mistake for mistake in found) == 1
    bare = mistakes_of("cams_of_mine:Bare", metrics=True)
    assert any("has no function views: derive it from camatlas.BaseMetric" in mistake for mistake in bare)
    assert "must end in _curve if the metric is a curve" in mistakes_of("cams_of_mine:Profile", metrics=True)[0]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("MyCam", {"powre": 2.0}, "explain.methods.cams_of_mine:MyCam: unknown parameter 'powre' (did you mean 'power'?)"),
        ("MyCam", {"power": "two"}, "explain.methods.cams_of_mine:MyCam.power: Input should be a valid number, got 'two'"),
        ("MyCam", {"power": True}, "explain.methods.cams_of_mine:MyCam.power: Input should be a valid number, got True"),
        ("MyCam", {"power": float("nan")}, "MyCam.power: Input should be a finite number, got nan"),
        ("MyCam", {"cells": [1, "x"]}, "MyCam.cells: Input should be a valid integer, got [1, 'x']"),
        ("MyCam", {"preset": "cube"}, "unknown preset 'cube' (known: square)"),
        ("MyCam", {"as": "a b"}, "'a b' is not a name"),
        ("MyCam", {"as": "iscam"}, "'iscam' is the name of a method of camatlas"),
        ("Checked", {}, "explain.methods.cams_of_mine:Checked.share: is required (it has no default)"),
        ("Checked", {"share": 2.0}, "Checked.share: Input should be less than or equal to 1, got 2.0"),
        ("Checked", {"share": 0.5, "mode": "worst"}, "making it raised KeyError: 'worst' (cams_of_mine.py:"),
        ("Strict", {"steps": 0}, "Strict.steps: Input should be greater than or equal to 1, got 0"),
        ("Strict", {"steps": "3"}, "Strict.steps: Input should be a valid integer, got '3'"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused_with_its_place(name: str, options: dict[str, Any], expected: str) -> None:
    (mistake,) = mistakes_of({f"cams_of_mine:{name}": options})
    assert expected in mistake


@pytest.mark.usefixtures("folder")
def test_all_mistakes_are_reported_at_once() -> None:
    wrong = {"cams_of_mine:MyCam": {"powre": 1, "power": "x"}}
    assert len(mistakes_of(wrong, "cams_of_mine:Plain", "gradcan", "cams_of_mine:MyCam", "cams_of_mine:MyCam")) == 5


@dataclasses.dataclass(frozen=True)
class InPython(camatlas.BaseMethod):
    weight: float = 1.0

    def __call__(self, evidence: Any, probe: Any) -> Any:
        return evidence.acts_BKuv.mean(1)


@pydantic.dataclasses.dataclass(frozen=True)
class MyGradCAM2(GradCam):
    pass


def test_objects_made_in_python_are_taken() -> None:
    built = build_methods([InPython(2.0), MyGradCAM2()])
    assert list(built) == ["in_python", "my_grad_cam2"]  # not the name that it inherits from ours
    assert parameters(built["in_python"]) == {"name": f"{__name__}:InPython", "weight": 2.0}
    assert build_methods([*built.values()]) == built
    assert "listed twice" in mistakes_of(InPython(1.0), InPython(2.0))[0]


def test_a_class_in_place_of_an_object_is_named() -> None:
    assert mistakes_of(InPython)[0].endswith("(or an object: InPython())")
    assert "neither a name nor" in mistakes_of(lambda evidence, probe: None)[0]


def test_the_default_label_is_the_class_in_snake_case() -> None:
    names = {"HiResCAM": "hi_res_cam", "MyCam": "my_cam", "X": "x", "GradCam2D": "grad_cam2_d", "_Own": "own"}
    assert {name: default_label(type(name, (), {}), METHODS) for name in names} == names


def test_our_own_class_by_its_path_is_ours() -> None:
    assert build_methods([{"pipeline.cams.gradient:GradCam": {}}]) == {"gradcam": GradCam()}
