"""camatlas query: read-only SQL over a run."""

from typing import Annotated

import typer

from jobs.answers import AsCsv, AsJson, Output, give
from jobs.console import command, leave_after


@command
def query(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    sql: Annotated[str, typer.Argument(help="a SELECT; views: explanations, images, failures, leaderboard, sanity")] = (
        "SELECT * FROM leaderboard"
    ),
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
) -> int:
    """Ask a run in SQL; without a question the leaderboard of the methods."""
    from pipeline.query import open_run

    with open_run(run) as opened:
        answer = opened.arrow(sql)
    give(answer, as_csv=as_csv, as_json=as_json, output=output)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(query))
