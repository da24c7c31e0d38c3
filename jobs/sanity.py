"""camatlas sanity: test whether a run's maps change when the model's weights or the target class change."""

from typing import Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Force, Output, check_output, output_table
from jobs.support.console import command, leave_after


@command
def sanity(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    images: Annotated[int, typer.Option("--images", min=2, help="maximum number of images to test")] = 16,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=99, help="number of steps in which the weights are randomised")
    ] = 5,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
    force: Force = False,
) -> int:
    """Test whether maps change when weights are randomised or the class is swapped; `query` has the view sanity."""
    from pipeline.audit.sanity import check_sanity
    from pipeline.results.query import open_run

    check_output(output, as_csv=as_csv, as_json=as_json, force=force)
    with open_run(run) as opened:
        table = check_sanity(opened, images, steps)
    output_table(table, as_csv=as_csv, as_json=as_json, output=output, force=force)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(sanity))
