"""camatlas query: read-only SQL over a run, or over an atlas of runs."""

from typing import Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Output, output_table
from jobs.support.console import command, leave_after
from jobs.support.signals import interruptible


@command
def query(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder, or a folder of runs")],
    sql: Annotated[
        str,
        typer.Argument(
            help="a SELECT on the views explanations, images, failures, leaderboard and sanity; a folder of runs also "
            "has the view runs"
        ),
    ] = "SELECT * FROM leaderboard",
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
) -> int:
    """Query a run, or a folder of runs, with SQL; the default query prints the leaderboard of the methods."""
    from pipeline.results.atlas import is_atlas, open_atlas
    from pipeline.results.query import open_run

    with open_atlas(run) if is_atlas(run) else open_run(run) as opened, interruptible(opened.interrupt):
        table = opened.arrow(sql)
    output_table(table, as_csv=as_csv, as_json=as_json, output=output)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(query))
