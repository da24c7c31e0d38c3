"""camatlas agreement: how similar the maps of a run's methods are."""

from typing import Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Force, Output, check_output, output_table
from jobs.support.console import command, leave_after


@command
def agreement(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    images: Annotated[int, typer.Option("--images", min=1, help="maximum number of maps per pair of methods")] = 200,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
    force: Force = False,
) -> int:
    """Compare the stored maps of every pair of methods: rank correlation and SSIM, with 95 % intervals."""
    from pipeline.results.agreement import agreement as compare_methods
    from pipeline.results.query import open_run

    check_output(output, as_csv=as_csv, as_json=as_json, force=force)
    with open_run(run) as opened:
        table = compare_methods(opened, images)
    output_table(table, as_csv=as_csv, as_json=as_json, output=output, force=force)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(agreement))
