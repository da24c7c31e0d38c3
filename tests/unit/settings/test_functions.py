"""Functions that a run file names are found from the working folder, and what is wrong with them is one sentence."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.settings.functions import called, imported, modules_beside

WHERE = "model.name"
NETWORK = """
import helpers_of_mine
table = {}

class Kind:
    @staticmethod
    def made():
        return 5

def build(classes, width=8):
    if classes > 9:
        raise KeyError("classes")
    return classes, width, helpers_of_mine.SIDE
"""
BROKEN = {
    "syntax": "def build(:\n",
    "raises": "1 / 0\n",
    "exits": "import sys\nsys.exit(2)\n",
    "needs_more": "import not_installed_anywhere\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with modules; what they add to Python's import system is taken out again."""
    (tmp_path / "helpers_of_mine.py").write_text("SIDE = 3\n")
    (tmp_path / "network_of_mine.py").write_text(NETWORK)
    for name, text in BROKEN.items():
        (tmp_path / f"{name}_of_mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.endswith("_of_mine"):
            del sys.modules[name]


@pytest.mark.usefixtures("folder")
def test_a_function_of_the_working_folder_is_imported_with_its_neighbours() -> None:
    assert imported(WHERE, "network_of_mine:build")(4) == (4, 8, 3)
    assert imported(WHERE, "network_of_mine:Kind.made")() == 5
    assert sys.path[0] != str(Path.cwd())  # it does not hide installed packages from later imports


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("network_of_mine:biuld", r"has no 'biuld' \(did you mean 'build'\?\)"),
        ("network_of_mine:table", "is a dict, not a function"),
        ("netwrok_of_mine:build", r"there is no module 'netwrok_of_mine' .*did you mean 'network_of_mine'"),
        ("pipeline.network:build", "'pipeline' is a package of camatlas; rename yours"),
        ("syntax_of_mine:build", "raised SyntaxError"),
        ("raises_of_mine:build", r"raised ZeroDivisionError: division by zero \(raises_of_mine.py:1\)"),
        ("exits_of_mine:build", "raised SystemExit: 2"),
        ("needs_more_of_mine:build", "needs the module 'not_installed_anywhere', which is not installed"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        imported(WHERE, name)
    assert len(refused.value.mistakes) == 1
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, r"model.arguments: .*missing a required argument: 'classes' .*\(classes, width=8\)"),
        ({"classes": 4, "depth": 2}, r"model.arguments: .*unexpected keyword argument 'depth'"),
        ({"classes": 10}, r"model.name: .*raised KeyError: 'classes' \(network_of_mine.py:12\)"),
    ],
)
def test_what_a_call_lacks_or_raises_is_one_sentence(arguments: dict[str, int], words: str) -> None:
    function = imported(WHERE, "network_of_mine:build")
    with pytest.raises(ConfigError, match=words):
        called(WHERE, "network_of_mine:build", function, arguments)
    assert called(WHERE, "network_of_mine:build", function, {"classes": 4}) == (4, 8, 3)


@pytest.mark.usefixtures("folder")
def test_only_modules_of_the_function_s_folder_need_to_travel() -> None:
    imported(WHERE, "network_of_mine:build")
    beside = {module.__name__ for module in modules_beside(["network_of_mine:build"])}
    assert beside == {"network_of_mine", "helpers_of_mine"}
    assert modules_beside(["pipeline.demo.network:build", "torchvision.models:resnet18", "absent:build"]) == []


def test_a_module_without_a_file_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("made_up")
    module.build = lambda: 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up", module)
    assert imported(WHERE, "made_up:build")() == 1
    assert modules_beside(["made_up:build"]) == []
