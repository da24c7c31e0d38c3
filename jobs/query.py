"""camatlas query: read-only SQL over a run, or over an atlas of runs."""

from typing import Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Output, output_table
from jobs.support.console import command, err, leave_after
from jobs.support.signals import interruptible

LEADERBOARD = "SELECT * FROM leaderboard"


@command
def query(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder, or a folder of runs")],
    sql: Annotated[
        str,
        typer.Argument(
            help="a SELECT on the views explanations, images, failures, leaderboard and sanity; a folder of runs also "
            "has the view runs"
        ),
    ] = LEADERBOARD,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
) -> int:
    """Query a run, or a folder of runs, with SQL; the default query prints the leaderboard of the methods."""
    from pipeline.results.atlas import is_atlas, open_atlas
    from pipeline.results.query import Run, open_run
    from pipeline.results.reliability import leaderboard_note, shipped_record

    with open_atlas(run) if is_atlas(run) else open_run(run) as opened, interruptible(opened.interrupt):
        table = opened.arrow(sql)
        metrics = opened.manifest.identity.metrics if isinstance(opened, Run) else {}
    output_table(table, as_csv=as_csv, as_json=as_json, output=output)
    note = leaderboard_note(metrics, shipped_record()) if sql == LEADERBOARD else ""
    if note:
        err.say(note)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(query))
