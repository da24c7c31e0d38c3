"""The package that users import: its names, its command, and modules of the user's that hide ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import camatlas


def python(*arguments: str, cwd: Path, path: Path | None = None) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=env)


def test_completion_shows_public_names_alone() -> None:
    assert dir(camatlas) == sorted(camatlas.__all__)
    assert all(getattr(camatlas, name).__name__ == name for name in camatlas.__all__)


def test_importing_loads_no_library(tmp_path: Path) -> None:
    code = "import sys, camatlas; print(sorted({'torch', 'ray', 'pyarrow', 'duckdb', 'pipeline'} & set(sys.modules)))"
    assert python("-c", code, cwd=tmp_path).stdout == "[]\n"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'camatlas' has no attribute 'explian'"):
        camatlas.explian  # type: ignore[attr-defined]  # noqa: B018


def test_both_ways_to_call_explain_are_one_function(tmp_path: Path) -> None:
    code = (
        "import pipeline\n"
        "before = pipeline.explain\n"
        "import pipeline.explain.explainer\n"
        "from nets import ToyNet, images\n"
        "for explain in (before, pipeline.explain):\n"
        "    print(sorted(explain(ToyNet(0), images(0, 1), methods=['gradcam'], layer='features.3').maps))\n"
    )
    made = python("-c", code, cwd=tmp_path, path=Path(__file__).resolve().parents[2])
    assert made.stdout == "['gradcam']\n" * 2, made.stderr


def test_the_module_is_the_command(tmp_path: Path) -> None:
    helped = python("-m", "camatlas", "--help", cwd=tmp_path)
    assert helped.returncode == 0
    assert "explain" in helped.stdout


@pytest.mark.parametrize("name", ["pipeline.py", "jobs/__init__.py", "schemas.py"])
def test_a_module_that_hides_ours_ends_in_one_sentence(tmp_path: Path, name: str) -> None:
    module = tmp_path / name
    module.parent.mkdir(exist_ok=True)
    module.write_text("print('not ours')\n")
    sentence = f"camatlas needs its own package '{name.split('/')[0].removesuffix('.py')}', but Python finds {module}"
    command = python("-m", "camatlas", "methods", cwd=tmp_path)
    assert (command.returncode, command.stdout) == (1, "")
    assert command.stderr.startswith(f"error: {sentence} instead: rename that module")
    assert command.stderr.count("\n") == 1
    used = python("-c", "import camatlas; camatlas.open_run('x')", cwd=tmp_path)
    assert f"ImportError: {sentence}" in used.stderr
    assert "not ours" not in used.stdout
