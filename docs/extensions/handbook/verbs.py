"""The reference of the command line, from the command itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from handbook.markdown import code, escaped, fence, table
from jobs.cli import app


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        name: with the group it is in, such as `truth make`.
        command: what it takes and does.
        group: the group in which `camatlas --help` lists it.
    """

    name: str
    command: TyperCommand | TyperGroup
    group: str = ""

    @property
    def options(self) -> frozenset[str]:
        """Return all its options, as they are written."""
        found = {name for each in self.command.params for name in (*each.opts, *each.secondary_opts)}
        return frozenset(name for name in found if name.startswith("-")) | {"--help"}


@cache
def verbs() -> tuple[Verb, ...]:
    """Return all verbs, in the order of `camatlas --help`."""
    return tuple(_verbs(_whole_command(), "", "Verbs"))


@cache
def general_options() -> frozenset[str]:
    """Return the options of the command itself."""
    return Verb("", _whole_command()).options


def page() -> str:
    """Write the page: the verbs by their groups, as `camatlas --help` lists them."""
    groups = dict.fromkeys(verb.group for verb in verbs())
    sections = {group: [_section(verb) for verb in verbs() if verb.group == group] for group in groups}
    return "\n".join(f"## {group}\n\n{''.join(texts)}" for group, texts in sections.items())


def _whole_command() -> TyperGroup:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def _verbs(several: TyperGroup, before: str, group: str) -> Iterator[Verb]:
    for name, inner in several.commands.items():
        if isinstance(inner, TyperGroup):
            yield from _verbs(inner, f"{before}{name} ", _group_of(inner) or group)
        elif isinstance(inner, TyperCommand) and not inner.hidden:
            yield Verb(f"{before}{name}", inner, _group_of(inner) or group)


def _group_of(command: TyperCommand | TyperGroup) -> str:
    panel = command.rich_help_panel
    return panel if isinstance(panel, str) else ""


def _section(verb: Verb) -> str:
    command = verb.command
    arguments = [each for each in command.params if isinstance(each, TyperArgument)]
    options = [each for each in command.params if isinstance(each, TyperOption) and "--help" not in each.opts]
    usage = " ".join(["camatlas", verb.name, *["[OPTIONS]"] * bool(options), *map(_shown, arguments)])
    example = (command.epilog or "").removeprefix("Example: ")
    parts = [
        f"(camatlas-{verb.name.replace(' ', '-')})=",
        f"### `camatlas {verb.name}`\n",
        f"{escaped(' '.join((command.help or '').split()))}\n",
        f"{fence(usage)}\n",
        *[f"Example: {code(example)}\n"] * bool(example),
        *[f"{table(['argument', 'meaning'], map(_argument, arguments))}\n"] * bool(arguments),
        *[f"{table(['option', 'meaning', 'default'], map(_option, options))}\n"] * bool(options),
    ]
    return "\n".join(parts) + "\n"


def _shown(argument: TyperArgument) -> str:
    name = (argument.metavar or str(argument.name).upper()).strip("[]")
    return f"{name if argument.required else f'[{name}]'}{'...' if argument.nargs != 1 else ''}"


def _argument(argument: TyperArgument) -> list[str]:
    return [code(_shown(argument)), escaped(argument.help or "")]


def _option(option: TyperOption) -> list[str]:
    value = option.metavar or str(option.name).upper()
    takes = "" if option.is_flag else f" {value}"
    names = ", ".join(code(name + takes) for name in (*option.opts, *option.secondary_opts))
    default = option.default if isinstance(option.default, (str, int, float)) else None
    shown = "" if default is None or isinstance(default, bool) else code(default)
    return [names, escaped(option.help or ""), shown]
