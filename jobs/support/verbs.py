"""How verbs stand in the command line: in groups, each with an example, and with the verb that usually comes next."""

import functools
import importlib.metadata
import platform
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from jobs.support.console import err, out

Options = Mapping[str, Any]
"""The arguments and options that a verb was called with, by the names of its parameters."""
Next = str | Callable[[Options], str]
"""A command, in which `{run}` stands for the argument `run`; or a function that makes it, empty for none."""

START, RUN, LOOK, JUDGE, DATA, REFERENCE = (
    "Start", "Run", "Look at a run", "Judge methods and metrics", "Data", "Reference",
)  # fmt: skip
"""The groups in which `camatlas --help` lists the verbs."""
_FOR_PROGRAMS = ("as_json", "json_events", "as_csv")
_LIBRARIES = ("torch", "ray")


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Attributes:
        run: its function, which carries `@command`.
        group: the group in which it is listed.
        example: a command, as its help shows.
        then: the verb that usually comes next.
    """

    run: Callable[..., NoReturn]
    group: str
    example: str
    then: Next = ""

    def add_to(self, app: typer.Typer) -> None:
        """Add the verb to the command line."""
        app.command(rich_help_panel=self.group, epilog=f"Example: {self.example}")(self._naming_the_next())

    def _naming_the_next(self) -> Callable[..., NoReturn]:
        @functools.wraps(self.run)
        def run(*arguments: Any, **options: Any) -> NoReturn:  # noqa: ANN401 - those of any verb
            try:
                self.run(*arguments, **options)
            except typer.Exit as ended:
                if ended.exit_code == 0:
                    name_next(self.then, options)
                raise
            raise AssertionError("a verb ends with its exit code")

        return run


def name_next(then: Next, options: Options) -> None:
    """Name the verb that usually comes next, on stderr; only to people, so not where the output is not a terminal."""
    if not (out.is_terminal and err.is_terminal) or any(options.get(name) for name in _FOR_PROGRAMS):
        return
    quoted = {name: shlex.quote(value) for name, value in options.items() if isinstance(value, str)}
    command = then.format_map(quoted) if isinstance(then, str) else then(options)
    if command:
        err.say(f"next: {command}")


def print_version(wanted: bool) -> None:
    """Print the versions of camatlas, Python and the two large libraries, which are not imported for it."""
    if not wanted:
        return
    libraries = ", ".join(f"{name} {_version_of(name)}" for name in _LIBRARIES)
    out.print(f"camatlas {_version_of('camatlas')} (Python {platform.python_version()}, {libraries})")
    raise typer.Exit


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown" if package == "camatlas" else "not installed"
