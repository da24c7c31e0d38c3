"""An analyst's machine without torch and Ray: the wheel and deploy/requirements.query.txt serve finished runs."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
import venv
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from unit.deploy.manifests import ROOT

REQUIREMENTS = ROOT / "deploy" / "requirements.query.txt"
RUN = ROOT / "tests" / "fixtures" / "run_0_1" / "run"
ABSENT = ("torch", "torchvision", "ray", "scipy", "sklearn", "altair", "webdataset", "safetensors")


def requirements() -> list[str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def closure(names: list[str]) -> Iterator[str]:
    """Name the distributions that pip would install, by what is installed here."""
    pending, done = list(names), set()
    while pending:
        requirement = Requirement(pending.pop())
        name = canonicalize_name(requirement.name)
        if name in done or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        done.add(name)
        try:
            pending += distribution(name).requires or []
        except PackageNotFoundError:
            continue
        yield name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, since building writes beside the sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("camatlas", "jobs", "pipeline", "schemas"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(target),
        ".",
    ]
    subprocess.run([sys.executable, *command], cwd=source, check=True, capture_output=True)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel and the distributions of the requirements, and nothing else.

    The distributions are links to those that are installed here, so that no registry is asked.
    """
    folder = tmp_path_factory.mktemp("analyst")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in closure(requirements()):
        for file in distribution(name).files or ():
            top = file.parts[0]
            place = Path(str(distribution(name).locate_file(top)))
            if top not in ("..", "__pycache__") and not (site / top).exists() and place.exists():
                (site / top).symlink_to(place)
    install = [
        "-m",
        "pip",
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run([sys.executable, *install], check=True, capture_output=True)
    return folder / "bin" / "python"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    shutil.copytree(RUN, tmp_path / "run")
    return tmp_path / "run"


def camatlas(python: Path, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python.with_name("camatlas")), *arguments], capture_output=True, text=True, cwd=cwd, env=env
    )


def test_each_requirement_is_a_dependency_as_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(requirements()) <= set(project["dependencies"])


@pytest.mark.slow
def test_the_environment_has_no_torch_and_no_ray(python: Path, tmp_path: Path) -> None:
    code = f"import importlib.util; print([name for name in {ABSENT} if importlib.util.find_spec(name)])"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout == "[]\n", found.stderr


@pytest.mark.slow
def test_finished_runs_are_queried_verified_and_shown(python: Path, run: Path, tmp_path: Path) -> None:
    counted = camatlas(python, "query", str(run), "SELECT count(*) AS n FROM explanations", "--csv", cwd=tmp_path)
    assert (counted.returncode, counted.stdout) == (0, "n\n60\n"), counted.stderr
    verified = camatlas(python, "verify", str(run), cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr
    state = camatlas(python, "status", str(run), "--json", cwd=tmp_path)
    assert json.loads(state.stdout)["state"] == "complete", state.stderr
    shown = camatlas(python, "show", str(run), "scene_00003", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, "scene_00003.png\n"), shown.stderr
    (tmp_path / "checks.yaml").write_text("checks: [failures <= 20, accuracy > 0]", encoding="utf-8")
    judged = camatlas(python, "check", str(run), "checks.yaml", cwd=tmp_path)
    assert (judged.returncode, judged.stdout.splitlines()[-1:]) == (0, ["0 failed, 2 passed"]), judged.stderr
    code = "import camatlas; print(camatlas.open_run('run').maps(\"method = 'gradcam'\").shape)"
    maps = subprocess.run([str(python), "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert maps.stdout == "(15, 12, 12)\n", maps.stderr


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["explain", "audit", "methods"])
def test_other_verbs_name_the_line_that_installs_what_they_need(python: Path, run: Path, verb: str) -> None:
    target = {"explain": [str(RUN.parent / "run.yaml")], "audit": [str(run)], "methods": []}[verb]
    refused = camatlas(python, verb, *target, cwd=run.parent)
    assert refused.returncode == 2
    *before, last = refused.stderr.splitlines()
    assert re.fullmatch(rf"error: `camatlas {verb}` needs \w+, which is not installed: pip install camatlas", last)
    assert verb == "explain" or before == []  # mistakes of the run file may be told first


@pytest.mark.slow
def test_the_wheel_carries_types_templates_and_the_demo(wheel: Path) -> None:
    from zipfile import ZipFile

    with ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {f"{package}/py.typed" for package in ("camatlas", "jobs", "pipeline", "schemas")} <= names
    assert {
        "pipeline/audit/templates/report.html",
        "pipeline/demo/network.safetensors",
        "pipeline/results/judged.json",
    } <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_viewer_shows_a_run_and_ends_with_ctrl_c(python: Path, run: Path, tmp_path: Path) -> None:
    before = sorted(path for path in tmp_path.rglob("*"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python.with_name("camatlas")), "view", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env) as server:
        assert server.stdout is not None
        base, _, token = server.stdout.readline().strip().partition("/?token=")
        cookie = {"Cookie": f"camatlas_view_{base.rpartition(':')[2]}={token}"}

        def get(path: str) -> str:
            with urllib.request.urlopen(urllib.request.Request(base + path, headers=cookie), timeout=60) as answer:
                return str(answer.read().decode("utf-8", "replace"))

        page = get("/")
        assert get(html.unescape(re.findall(r'src="(/tile[^"]+)"', page)[0]))
        assert "--accent" in get("/static/view.css")
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    assert sorted(path for path in tmp_path.rglob("*")) == before
