"""camatlas sanity: do the maps of a run change when the model, or the class, does?"""

from typing import Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Output, give
from jobs.support.console import command, leave_after


@command
def sanity(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    images: Annotated[int, typer.Option("--images", min=2, help="most images to draw again")] = 16,
    steps: Annotated[int, typer.Option("--steps", min=1, max=99, help="steps in which the model is made random")] = 5,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
) -> int:
    """Draw maps again with a model made random step by step, and for another class; `query` calls it sanity."""
    from pipeline.audit.sanity import check_sanity
    from pipeline.results.query import open_run

    with open_run(run) as opened:
        answer = check_sanity(opened, images, steps)
    give(answer, as_csv=as_csv, as_json=as_json, output=output)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(sanity))
