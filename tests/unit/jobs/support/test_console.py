"""How a command ends: exit codes, error messages and signals."""

import os
import signal

import pytest
import typer
from typer.testing import CliRunner
from verbs import exit_code, raising

from jobs.support import console
from jobs.support.console import EXIT_INTERRUPTED, EXIT_TERMINATED, command, out
from jobs.support.signals import TerminatedError
from pipeline.errors import CamatlasError, ConfigError, DamagedRunError, LayerError, Mistake, StalledError, StoreError


@pytest.mark.parametrize("code", [0, 3, 4])
def test_the_return_value_of_a_verb_is_the_exit_code(code: int) -> None:
    assert exit_code(lambda: code) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CamatlasError("it broke"), 1),
        (StalledError("it broke"), 1),
        (ConfigError.one("it", "broke"), 2),
        (LayerError("it broke"), 2),
        (DamagedRunError("it broke"), 4),
        (StoreError("it broke"), 5),
    ],
)
def test_each_camatlas_error_has_a_message_and_an_exit_code(
    error: CamatlasError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raising(error)) == code
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_several_mistakes_are_printed_one_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError([Mistake("a", "is wrong", "try b"), Mistake("c", "is too")])
    assert exit_code(raising(error)) == 2
    assert capsys.readouterr().err == "error: 2 mistakes, nothing was started\n  a: is wrong (try b)\n  c: is too\n"


def test_brackets_and_colons_of_a_message_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code(raising(StoreError("[bold]x[/bold] :smile: [/nope]")))
    assert capsys.readouterr().err == "error: [bold]x[/bold] :smile: [/nope]\n"


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), AssertionError("bug")])
def test_other_exceptions_are_not_hidden(error: Exception) -> None:
    with pytest.raises(type(error), match="bug"):
        command(raising(error))()


def test_ctrl_c_ends_with_130() -> None:
    assert exit_code(raising(KeyboardInterrupt())) == EXIT_INTERRUPTED == 130


def test_sigterm_ends_with_143_after_the_verb_has_cleaned_up() -> None:
    cleaned: list[bool] = []

    def verb() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 1)
        finally:
            cleaned.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    assert exit_code(verb) == EXIT_TERMINATED == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_handler_installed_by_ray_ends_a_command_in_the_same_way() -> None:
    def as_ray_does(number: int, frame: object) -> None:
        raise SystemExit(number)

    def verb() -> int:
        signal.signal(signal.SIGTERM, as_ray_does)
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert exit_code(verb) == EXIT_TERMINATED
    with pytest.raises(SystemExit):
        exit_code(raising(SystemExit(9)))


def test_sigterm_is_not_caught_as_an_exception() -> None:
    assert issubclass(TerminatedError, BaseException)
    assert not issubclass(TerminatedError, Exception)


def test_a_command_keeps_the_name_and_the_options_of_its_verb() -> None:
    app = typer.Typer()

    def greet(name: str, times: int = 1) -> int:
        """Say hello."""
        out.print(f"hello {name}" * times)
        return 3

    app.command()(command(greet))
    ended = CliRunner().invoke(app, ["you", "--times", "2"])
    assert (ended.exit_code, ended.stdout) == (3, "hello youhello you\n")
    assert "Say hello." in CliRunner().invoke(app, ["--help"]).stdout
    assert CliRunner().invoke(app, ["you", "--time", "2"]).exit_code == 2


def test_tables_are_not_folded_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    out.print("x" * 500)
    assert capsys.readouterr().out == "x" * 500 + "\n"
    assert console.out.width >= 500
