"""camatlas agreement: how far the methods of a run agree."""

from typing import Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Output, give
from jobs.support.console import command, leave_after


@command
def agreement(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    images: Annotated[int, typer.Option("--images", min=1, help="most maps to compare for each two methods")] = 200,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
) -> int:
    """Compare the stored maps of every two methods: rank correlation and structural similarity, with 95 % intervals."""
    from pipeline.results.agreement import agreement as compared
    from pipeline.results.query import open_run

    with open_run(run) as opened:
        answer = compared(opened, images)
    give(answer, as_csv=as_csv, as_json=as_json, output=output)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(agreement))
