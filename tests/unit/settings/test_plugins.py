"""Methods and metrics of the user's: how they are found, what is wrong with them in one sentence, and their digests."""

# ruff: noqa: E501 - plug-ins of users are seldom annotated; a mistake is one line

import dataclasses
import importlib
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pydantic.dataclasses
import pytest
import typer

import camatlas
from jobs.methods import methods as print_methods
from jobs.metrics import metrics as print_metrics
from pipeline.cams import METHODS, build_methods
from pipeline.cams.gradient import GradCam
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS, build_metrics, metric_fields, reads_boxes, reads_parts
from pipeline.settings import entry_points
from pipeline.settings.plugins import classes_of, default_label
from pipeline.settings.registry import parameters
from pipeline.settings.sources import source_digest

MODULE = '''
from dataclasses import dataclass, field
from typing import Annotated, ClassVar
import pydantic, pydantic.dataclasses
import camatlas
from helper_of_mine import base

@dataclass(frozen=True)
class MyCam(camatlas.BaseMethod):
    """Mean of the activations."""
    power: float = 1.0
    cells: tuple[int, ...] = (1, 2)
    presets: ClassVar = {"square": {"power": 2.0}}
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1) ** self.power

@dataclass(frozen=True)
class Checked(camatlas.BaseMethod):
    share: Annotated[float, pydantic.Field(gt=0, le=1)]
    mode: str = "mean"
    def __post_init__(self):
        if self.mode == "worst":
            raise KeyError("worst")
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

@pydantic.dataclasses.dataclass(frozen=True)
class Strict(camatlas.BaseMethod):
    steps: int = pydantic.Field(3, ge=1)
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

class Plain(camatlas.BaseMethod):
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

@dataclass
class Mutable(Plain):
    pass

@dataclass(frozen=True)
class Silent(camatlas.BaseMethod):
    pass

@dataclass(frozen=True)
class Other(camatlas.BaseMethod):
    def __call__(self, image):
        return image

@dataclass(frozen=True)
class Needless:
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

@dataclass(frozen=True)
class WrongNeeds(Needless):
    needs: ClassVar = {"gradients": True}

@dataclass(frozen=True)
class Reserved(Needless):
    needs: ClassVar = camatlas.Needs()
    name: str = "mine"

@dataclass(frozen=True)
class Named(MyCam):
    name: ClassVar[str] = "gradcam"

@dataclass(frozen=True)
class Peak(camatlas.BaseMetric):
    better: ClassVar = "higher"
    unit: ClassVar = "[0, 1]"
    def __call__(self, batch):
        return batch.heatmaps_BMHW.amax((2, 3))

@dataclass(frozen=True)
class Aimless(Peak):
    better: ClassVar = "up"
    reads: ClassVar = "pixels"
    truth: ClassVar = "masks"
    unit: ClassVar = None

@dataclass(frozen=True)
class Bare:
    def __call__(self, batch):
        return batch.heatmaps_BMHW.amax((2, 3))

@dataclass(frozen=True)
class Profile(Peak):
    curve: ClassVar = True

def function(evidence, probe):
    return evidence.acts_BKuv.mean(1)

made = MyCam()
number = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with modules; what they add to Python's import system is taken out again."""
    (tmp_path / "cams_of_mine.py").write_text(MODULE)
    (tmp_path / "helper_of_mine").mkdir()
    (tmp_path / "helper_of_mine" / "__init__.py").write_text("from . import base\n")
    (tmp_path / "helper_of_mine" / "base.py").write_text("SIDE = 3\n")
    (tmp_path / "unused_of_mine.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_of_mine")]:
        del sys.modules[name]


def mistakes_of(*specs: Any, metrics: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_metrics(specs) if metrics else build_methods(specs)
    return [str(mistake) for mistake in caught.value.mistakes]


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


def test_the_digest_changes_with_what_the_module_imports_and_with_nothing_else(folder: Path) -> None:
    def digest() -> str:
        for name in [name for name in sys.modules if name.partition(".")[0].endswith("_of_mine")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        kind = importlib.import_module("cams_of_mine").MyCam
        return source_digest("x", "cams_of_mine:MyCam", kind)

    sys.path.insert(0, str(folder))
    first = digest()
    (folder / "unused_of_mine.py").write_text("2\n")
    assert digest() == first
    for path in ("helper_of_mine/base.py", "helper_of_mine/__init__.py", "cams_of_mine.py"):
        before = digest()
        (folder / path).write_text((folder / path).read_text() + "# changed\n")
        assert digest() != before


def test_the_digest_of_an_installed_class_covers_its_package() -> None:
    import typer.main

    digest = source_digest("x", "typer.main:Typer", typer.main.Typer)
    assert digest == source_digest("x", "typer:Typer", typer.main.Typer)
    assert len(digest) == 64


def test_a_class_without_a_file_has_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up_of_mine")
    exec("from dataclasses import dataclass\n@dataclass(frozen=True)\nclass X: pass", vars(module))
    monkeypatch.setitem(sys.modules, "made_up_of_mine", module)
    with pytest.raises(ConfigError, match="cannot be read, so a change of it would go unnoticed"):
        source_digest("x", "made_up_of_mine:X", module.X)


def declare(monkeypatch: pytest.MonkeyPatch, group: str, **named: str) -> None:
    points = [EntryPoint(name.rstrip("_"), value, group) for name, value in named.items()]
    monkeypatch.setattr(entry_points, "entry_points", lambda group: [p for p in points if p.group == group])
    entry_points.entries.cache_clear()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    entry_points.entries.cache_clear()


def test_an_entry_point_is_loaded_when_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    declare(monkeypatch, "camatlas.methods", theirs="cams_of_mine:MyCam", broken="unused_of_mine:X", gone="nowhere:X")
    assert list(build_methods(["gradcam"])) == ["gradcam"]
    assert "cams_of_mine" not in sys.modules
    built = build_methods([{"theirs": {"power": 3.0}}, "cams_of_mine:MyCam"])
    assert list(built) == ["theirs", "my_cam"]
    assert parameters(built["theirs"])["name"] == "cams_of_mine:MyCam"
    assert "cannot be loaded: ZeroDivisionError: division by zero (unused_of_mine.py:1)" in mistakes_of("broken")[0]
    assert "cannot be loaded: ModuleNotFoundError" in mistakes_of("gone")[0]
    assert mistakes_of("thiers") == ["explain.methods: unknown name 'thiers' (did you mean 'theirs'?)"]
    assert classes_of(["gradcam", {"theirs": {}}, "a.b:C"], "camatlas.methods") == ["cams_of_mine:MyCam", "a.b:C"]


def test_a_name_of_ours_or_of_two_packages_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    declare(monkeypatch, "camatlas.methods", gradcam="cams_of_mine:MyCam", two="a:One", two_="b:Two")
    (ours,) = mistakes_of("gradcam")
    assert "'gradcam' is a method of camatlas (pipeline.cams.gradient:GradCam), and also cams_of_mine:MyCam" in ours
    assert "'two' is both a:One of an unknown package and b:Two of an unknown package" in mistakes_of("two")[0]
    assert list(build_methods(["pipeline.cams.gradient:GradCam", "cams_of_mine:MyCam"])) == ["gradcam", "my_cam"]


def test_the_command_lists_entry_points_and_prints_pages(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    declare(monkeypatch, "camatlas.methods", theirs="cams_of_mine:MyCam", gradcam="cams_of_mine:Plain")
    for name in (None, "cams_of_mine:MyCam", "theirs"):
        with pytest.raises(typer.Exit):
            print_methods(name)
    shown = capsys.readouterr().out
    assert "entry points camatlas.methods" in shown
    assert "ready" in shown
    assert "Mean of the activations." in shown
    assert "power: 1.0" in shown
    with pytest.raises(typer.Exit):
        print_metrics("cams_of_mine:Peak")
    assert "better: higher" in capsys.readouterr().out


def test_no_registered_name_is_that_of_an_installed_plugin() -> None:
    assert not set(entry_points.entries("camatlas.methods")) & set(METHODS)
    assert not set(entry_points.entries("camatlas.metrics")) & set(METRICS)
