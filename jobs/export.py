"""camatlas export: write a run in the format of another tool."""

from typing import Annotated

import typer

from jobs.support.console import command, err, leave_after, out


@command
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="folder to write; must not exist, or be empty")],
    target: Annotated[str, typer.Option("--to", help="target format: delta, fiftyone, hf, iceberg or spotlight")],
) -> int:
    """Export a run for Delta Lake, FiftyOne, Hugging Face datasets, Iceberg or Spotlight; print the folder's path."""
    from pipeline.export import export_run

    for note in export_run(run, target, dest):
        err.say(note)
    out.say(dest)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(export))
