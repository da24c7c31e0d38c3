"""camatlas judge: how far each metric can be believed, measured on scenes whose truth is exact."""

import os
from pathlib import Path
from typing import Annotated

import typer

from jobs.support.console import command, err, leave_after, out


@command
def judge(
    folder: Annotated[
        str, typer.Argument(metavar="[DIR]", help="folder for the result and for finished blocks")
    ] = "judge",
    scenes: Annotated[int, typer.Option(min=12, help="number of scenes, shared out among the networks")] = 200,
    networks: Annotated[str, typer.Option(help="networks, separated by commas: plain, residual, vit")] = (
        "plain,residual,vit"
    ),
    seed: Annotated[int, typer.Option(min=0, help="seed of the scenes, the random maps and the intervals")] = 0,
    processes: Annotated[int | None, typer.Option(min=1, help="number of processes; by default one per core")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record instead of its path")] = False,
) -> int:
    """Judge every metric on drawn scenes; write judge.json and metrics.md, and continue if interrupted."""
    from pipeline.judge.judging import judge as judge_metrics
    from pipeline.judge.output import as_text, write_record

    names = [name.strip() for name in networks.split(",") if name.strip()]
    record = judge_metrics(Path(folder), names, scenes, seed, processes or os.cpu_count() or 1, err.say)
    path = write_record(Path(folder), record)
    out.say(as_text(record) if as_json else str(path))
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(judge))
