"""camatlas query: read-only SQL over a run, or over an atlas of runs."""

from typing import Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Output, give
from jobs.support.console import command, leave_after
from jobs.support.signals import heard_by


@command
def query(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder, or a folder of runs")],
    sql: Annotated[
        str,
        typer.Argument(help="a SELECT; views: explanations, images, failures, leaderboard, sanity; runs of a folder"),
    ] = "SELECT * FROM leaderboard",
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
) -> int:
    """Ask a run, or a folder of runs, in SQL; without a question the leaderboard of the methods."""
    from pipeline.results.atlas import is_atlas, open_atlas
    from pipeline.results.query import open_run

    with open_atlas(run) if is_atlas(run) else open_run(run) as opened, heard_by(opened.interrupt):
        answer = opened.arrow(sql)
    give(answer, as_csv=as_csv, as_json=as_json, output=output)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(query))
