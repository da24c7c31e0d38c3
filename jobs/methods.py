"""camatlas methods: list the CAM methods, or print the page of one."""

from typing import Annotated

import typer
from rich.table import Table

from jobs.support.console import command, leave_after, out
from pipeline.errors import ConfigError, nearest


@command
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="print the page of this method")] = None,
) -> int:
    """List the CAM methods with their paper and cost; with a name, print its page."""
    from pipeline.cams import ADAPTERS, METHODS
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
    elif name in METHODS | ADAPTERS:
        out.print(method_page((METHODS | ADAPTERS)[name]))
    else:
        raise ConfigError.one("NAME", f"unknown method '{name}'", nearest(name, METHODS | ADAPTERS))
    return 0


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
