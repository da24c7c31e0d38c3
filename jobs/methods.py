"""camatlas methods: list the CAM methods, or print the page of one."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from jobs.support.answers import AsJson
from jobs.support.console import command, leave_after, out
from pipeline.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pipeline.settings.plugins import Room


@command
def methods(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="print its page; yours: package.module:Class"),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List the CAM methods with their paper and cost; with a name, print its page."""
    if as_json:
        from pipeline.results.catalogue_facts import method_facts

        return print_facts(method_facts(), name, "method")
    from pipeline.cams import ADAPTERS, METHOD_PLUGINS, METHODS
    from pipeline.results.catalogue import adapter_rows, method_page, method_rows

    if name is None:
        print_rows(method_rows())
        out.print(
            "\nCost per image for ResNet-50 (K = 2048, 7 x 7; stages of 256, 512, 1024 and 2048 channels), in addition "
            "to one forward pass (and head backward) that all methods share. A head pass runs the layers after the "
            "target layer. The cost of methods that need attention is that for ViT-B/16 (12 layers); there a head pass "
            "runs the layers after the last block."
        )
        out.print("\nMethods of others (docs/others.md)\n")
        print_rows(adapter_rows())
        print_plugins(METHOD_PLUGINS, METHODS | ADAPTERS)
    elif name in METHODS | ADAPTERS:
        out.print(method_page((METHODS | ADAPTERS)[name]))
    else:
        print_plugin(name, METHOD_PLUGINS, METHODS | ADAPTERS)
    return 0


def print_facts(facts: list[dict[str, Any]], name: str | None, noun: str) -> int:
    """Print one JSON object per method or metric, or only that of one.

    Raises:
        ConfigError: there is none of this name; plug-ins have pages only.
    """
    wanted = [fact for fact in facts if name in (None, fact["name"])]
    if not wanted:
        hint = nearest(str(name), [fact["name"] for fact in facts])
        raise ConfigError.one("NAME", f"camatlas has no {noun} '{name}' to describe as JSON", hint)
    for fact in wanted:
        out.print(json.dumps(fact))
    return 0


def print_plugins(room: "Room[Any]", registry: Mapping[str, type]) -> None:
    """Print the methods or metrics that installed packages declare, if there are any."""
    from pipeline.results.catalogue import plugin_rows

    rows = plugin_rows(room, registry)
    if rows:
        out.print(f"\nOf installed packages (entry points {room.group}):")
        print_rows(rows)


def print_plugin(name: str, room: "Room[Any]", registry: Mapping[str, type]) -> None:
    """Print the page of a plug-in by its class, `package.module:Class`, or its entry point.

    Raises:
        ConfigError: there is none, or it cannot be loaded.
    """
    from pipeline.results.catalogue import plugin_page
    from pipeline.settings.entry_points import entries
    from pipeline.settings.plugins import find

    plugin = find(name, room, registry, "NAME")
    if plugin is None:
        hint = nearest(name, [*registry, *entries(room.group)])
        raise ConfigError.one("NAME", f"unknown {room.noun} '{name}'", hint)
    out.print(plugin_page(plugin))


def print_rows(rows: list[dict[str, str]]) -> None:
    """Print a list of rows as a table, with the keys of the first row as its header."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    out.print(table)


if __name__ == "__main__":
    leave_after(lambda: typer.run(methods))
