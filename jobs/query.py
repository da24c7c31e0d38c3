"""camatlas query: read-only SQL over a run, or over an atlas of runs."""

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.support.answers import AsCsv, AsJson, Force, Output, check_output, output_table
from jobs.support.console import command, err, leave_after, out
from jobs.support.signals import interruptible

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.results.leaderboard import Metrics

LEADERBOARD = "SELECT * FROM leaderboard"


@command
def query(
    run: Annotated[str, typer.Argument(metavar="RUN", help="the run folder, or a folder of runs")],
    sql: Annotated[
        str,
        typer.Argument(
            help="a SELECT on the views explanations, images, failures, classes, leaderboard and sanity; a folder of "
            "runs also has the view runs"
        ),
    ] = LEADERBOARD,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
    output: Output = None,
    force: Force = False,
) -> int:
    """Query a run, or a folder of runs, with SQL; the default query prints the leaderboard of the methods."""
    from pipeline.results.atlas import is_atlas, open_atlas
    from pipeline.results.query import open_run

    check_output(output, as_csv=as_csv, as_json=as_json, force=force)
    with open_atlas(run) if is_atlas(run) else open_run(run) as opened, interruptible(opened.interrupt):
        table = opened.arrow(sql)
    if sql == LEADERBOARD and not (as_csv or as_json or output):
        _print_leaderboard(table, opened.metrics)
    else:
        output_table(table, as_csv=as_csv, as_json=as_json, output=output, force=force)
    if sql == LEADERBOARD:
        _print_notes(table, opened.metrics)
    return 0


def _print_leaderboard(table: "pa.Table", metrics: "Metrics") -> None:
    """Print the leaderboard with the direction of each metric; those that judge the model stand apart."""
    from pipeline.results.leaderboard import of_maps, of_model

    output_table(of_maps(table, metrics))
    judging = of_model(table, metrics)
    if judging is not None:
        out.say("\nThe next metrics judge the model, not the maps, and are the same for every method:")
        output_table(judging)


def _print_notes(table: "pa.Table", metrics: "Metrics") -> None:
    """Say on stderr which rows cannot be compared, and which metrics cannot carry a conclusion about methods."""
    from pipeline.results.leaderboard import note_of_rules
    from pipeline.results.reliability import leaderboard_note, shipped_record

    notes = note_of_rules(table["target_rule"].to_pylist()), leaderboard_note(metrics, shipped_record())
    for note in filter(None, notes):
        err.say(note)


if __name__ == "__main__":
    leave_after(lambda: typer.run(query))
