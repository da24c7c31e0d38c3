"""The command line as a whole: groups, examples, versions, completion, the next verb, and a fast start."""

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from jobs import cli
from jobs.cli import app
from jobs.support import verbs
from jobs.support.console import command
from jobs.support.verbs import DATA, JUDGE, LOOK, REFERENCE, RUN, START, Verb, name_next

HEAVY = ("torch", "ray", "pyarrow", "duckdb", "numpy", "pandas", "PIL", "jinja2", "altair", "obstore", "matplotlib")
WIDE = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def invoked(*arguments: str) -> str:
    ended = CliRunner().invoke(app, list(arguments), env=WIDE)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_the_help_lists_every_verb_in_its_group() -> None:
    text = invoked("--help")
    places = [text.index(f" {group} ─") for group in (START, RUN, LOOK, JUDGE, DATA, REFERENCE)]
    assert places == sorted(places)
    names = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback is not None]
    assert {"init", "plan", "explain", "verify", "query", "schema"} <= set(names)
    assert [name for name in (*names, "truth") if not re.search(rf"^│ {name} ", text, re.MULTILINE)] == []


def examples() -> list[str]:
    return [str(info.epilog) for info in app.registered_commands]


def test_the_help_of_every_verb_has_an_example_that_can_be_parsed() -> None:
    for info in app.registered_commands:
        assert info.callback is not None
        name = info.callback.__name__
        example = str(info.epilog)
        assert example.startswith(f"Example: camatlas {name}"), name
        assert example in " ".join(invoked(name, "--help").split())


def started(code: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | WIDE | environment)


RUN_AND_REPORT = f"""
import sys
from jobs.cli import app
try:
    app(prog_name="camatlas")
finally:
    print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def test_help_version_and_a_wrong_verb_import_nothing_large() -> None:
    helped, asked, wrong = (started(RUN_AND_REPORT, word) for word in ("--help", "--version", "exlpain"))
    for ended in (helped, asked, wrong):
        assert ended.stderr.strip().endswith("HEAVY []")
    assert asked.stdout == (
        f"camatlas {version('camatlas')} (Python {platform.python_version()}, torch {version('torch')}, "
        f"ray {version('ray')})\n"
    )
    assert (asked.returncode, wrong.returncode, wrong.stdout) == (0, 2, "")
    assert "No such command 'exlpain'. Did you mean 'explain'?" in wrong.stderr


def test_a_library_that_is_missing_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "_LIBRARIES", ("torch", "no-such-library"))
    assert "no-such-library not installed)" in invoked("--version")


@pytest.mark.parametrize(
    ("words", "index", "found"), [("camatlas ver", "1", "verify"), ("camatlas explain --lim", "2", "--limit")]
)
def test_the_shell_completes_verbs_and_options(words: str, index: str, found: str) -> None:
    asked = {"_CAMATLAS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": index}
    ended = started(RUN_AND_REPORT, **asked)
    assert found in ended.stdout.split()
    assert ended.stderr.strip().endswith("HEAVY []")


def test_the_completion_of_a_shell_is_a_script_for_it() -> None:
    shown = started(RUN_AND_REPORT, **{"_CAMATLAS_COMPLETE": "source_bash"})
    assert "complete -o default -F _camatlas_completion camatlas" in shown.stdout
    assert subprocess.run(["bash", "-n"], input=shown.stdout, text=True, check=False).returncode == 0


class Terminal:
    """A console on a terminal, or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.is_terminal = is_terminal
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    shown = Terminal(is_terminal=True)
    monkeypatch.setattr(verbs, "err", shown)
    monkeypatch.setattr(verbs, "out", shown)
    return shown


def test_the_next_verb_is_named_after_success_with_the_run_quoted(terminal: Terminal) -> None:
    @command
    def check(run: str, ends_with: int = 0) -> int:
        return ends_with

    one = typer.Typer()
    Verb(check, RUN, "camatlas check my_run", "camatlas query {run}").add_to(one)
    for run, code in (("my run; rm -rf x", 0), ("other", 4)):
        assert CliRunner().invoke(one, [run, "--ends-with", str(code)]).exit_code == code
    assert terminal.said == ["next: camatlas query 'my run; rm -rf x'"]


@pytest.mark.parametrize("option", ["as_json", "json_events", "as_csv"])
def test_programs_are_not_told_the_next_verb(terminal: Terminal, option: str) -> None:
    name_next("camatlas query {run}", {"run": "r", option: True})
    assert terminal.said == []
    name_next("camatlas query {run}", {"run": "r", option: False})
    assert terminal.said == ["next: camatlas query r"]


def test_where_the_output_is_no_terminal_the_next_verb_is_not_named(terminal: Terminal) -> None:
    terminal.is_terminal = False
    name_next("camatlas query {run}", {"run": "r"})
    assert terminal.said == []


def test_after_explain_comes_verify_of_its_run(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: {shards: a.tar}\nmodel: {name: m}\noutput: {path: the run}\n", encoding="utf-8")
    called = {"config": str(path), "settings": None, "output": None}
    assert cli._after_explain(called) == "camatlas verify 'the run'"
    assert cli._after_explain({**called, "output": "other"}) == "camatlas verify other"
    assert cli._after_explain({**called, "settings": ["output.path=third"]}) == "camatlas verify third"
    assert cli._after_init({"output": "b c.yaml"}) == "camatlas plan 'b c.yaml'"


def test_every_template_of_a_next_verb_is_filled_from_its_own_arguments(terminal: Terminal) -> None:
    known = {"run": "RUN", "config": "CONFIG", "dest": "DEST"}
    for verb in cli.VERBS:
        if isinstance(verb.then, str):
            name_next(verb.then, {key: known[key] for key in known if f"{{{key}}}" in verb.then})
    assert "next: camatlas verify RUN" not in terminal.said
    assert {"next: camatlas query RUN", "next: camatlas explain CONFIG", "next: camatlas init DEST"} <= set(
        terminal.said
    )


@pytest.mark.parametrize(("verb", "name", "fact"), [("methods", "iscam", "cost"), ("metrics", "insertion", "unit")])
def test_methods_and_metrics_as_json(verb: str, name: str, fact: str) -> None:
    facts = [json.loads(line) for line in invoked(verb, "--json").splitlines()]
    (one,) = (each for each in facts if each["name"] == name)
    assert json.loads(invoked(verb, name, "--json")) == one
    assert one["parameters"]
    assert one[fact]
    listed = invoked(verb)
    assert all(each["name"] in listed for each in facts)
    assert len({each["name"] for each in facts}) == len(facts)


def test_the_facts_of_a_method_are_numbers() -> None:
    iscam = json.loads(invoked("methods", "iscam", "--json"))
    assert iscam["cost"] == {"network": "ResNet-50", "forwards": 20480, "head_passes": 0, "backwards": 0}
    assert iscam["parameters"]["num_steps"] == 10
    assert iscam["paper"]["year"] > 2000
    unknown = CliRunner().invoke(app, ["methods", "gradcan", "--json"])
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "did you mean 'gradcam'?" in unknown.stderr


WITHOUT = """
import importlib.abc, json, sys
from typer.testing import CliRunner

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "ray"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Absent())
from jobs.cli import app
ended = [CliRunner().invoke(app, words.split()) for words in sys.argv[1:]]
print(json.dumps([(each.exit_code, each.stderr.splitlines()[-1:]) for each in ended]))
"""


def test_on_a_machine_without_torch_and_ray_a_verb_names_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    (tmp_path / "a.jpg").write_bytes(b"")
    path.write_text(f"data: {{shards: {tmp_path}}}\nmodel: {{name: torchvision/resnet18}}\noutput: {{path: out}}\n")
    words = {
        "explain": f"explain {path}",
        "plan": f"plan {path}",
        "init": f"init {tmp_path} --out {tmp_path}/b.yaml",
        "methods": "methods --json",
        "truth make": f"truth make {tmp_path}/scenes",
    }
    *refused, schema = json.loads(started(WITHOUT, *words.values(), "schema").stdout)
    for (code, (line,)), verb in zip(refused, words, strict=True):
        assert code == 2
        assert re.fullmatch(
            rf"error: `camatlas {verb}` needs (torch|ray), which is not installed: pip install camatlas", line
        )
    assert schema == [0, []]
    assert {each.name for each in tmp_path.iterdir()} == {"a.jpg", "run.yaml"}
