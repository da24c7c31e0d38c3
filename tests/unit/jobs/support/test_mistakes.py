"""Mistakes are told as soon as they are known, each once, and the exit code is that of all of them."""

import pytest
import typer

from jobs.support.mistakes import Telling
from pipeline.errors import ConfigError, Mistake, Mistakes

FIRST, SECOND, LAST = (Mistake(f"key.{name}", "is wrong") for name in "abc")


def test_each_mistake_is_told_once_in_the_order_found(capsys: pytest.CaptureFixture[str]) -> None:
    mistakes = Mistakes()
    telling = Telling(mistakes)
    telling.tell()
    assert capsys.readouterr().err == ""
    mistakes.found += [FIRST, FIRST]
    telling.tell()
    assert capsys.readouterr().err == ("error: key.a: is wrong\nlooking for more mistakes, in the data and the model\n")
    mistakes.found.append(SECOND)
    telling.tell()
    assert capsys.readouterr().err == "error: key.b: is wrong\n"
    with pytest.raises(typer.Exit) as ended, telling.the_rest():
        raise ConfigError([FIRST, SECOND, LAST])
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == "error: key.c: is wrong\nerror: 3 mistakes, nothing was started\n"


def test_mistakes_of_which_none_has_been_told_stay_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError), Telling(Mistakes()).the_rest():
        raise ConfigError([FIRST])
    assert capsys.readouterr().err == ""
