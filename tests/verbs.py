"""Helpers for tests of verbs: run one for its exit code, or make one that raises."""

from collections.abc import Callable

import pytest
import typer

from jobs.support.console import command

Verb = Callable[[], int]


def exit_code(verb: Verb) -> int:
    with pytest.raises(typer.Exit) as caught:
        command(verb)()
    return caught.value.exit_code


def raising(error: BaseException) -> Verb:
    def verb() -> int:
        raise error

    return verb
