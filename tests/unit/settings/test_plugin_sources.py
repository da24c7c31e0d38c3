"""The digest of a plug-in's source, and the entry points of installed packages."""

import importlib
import sys
import types
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from plugin_module import mistakes_of, working_folder

from jobs.methods import methods as print_methods
from jobs.metrics import metrics as print_metrics
from pipeline.cams import METHODS, build_methods
from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.settings import entry_points
from pipeline.settings.plugins import classes_of
from pipeline.settings.registry import parameters
from pipeline.settings.sources import source_digest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from working_folder(tmp_path, monkeypatch)


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
