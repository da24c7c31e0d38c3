"""camatlas truth: scenes whose parts have exact values, and networks that classify them."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.support.console import command, counted, err, leave_after, out

app = typer.Typer(
    no_args_is_help=True, help="Draw scenes with exact Shapley values as shards, or train networks that classify them."
)


@app.command("make")
@command
def make(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="new folder for shards, class table and run file")],
    network: Annotated[
        str, typer.Option(help="network whose outputs give the values: plain, residual, vit or hand")
    ] = "plain",
    weights: Annotated[str | None, typer.Option(help="weights file instead of the bundled weights")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="number of scenes that the network classifies rightly")] = 210,
    seed: Annotated[int, typer.Option(min=0, help="seed of the scenes")] = 0,
    scenes_per_shard: Annotated[int, typer.Option(min=1, help="number of scenes in one shard")] = 100,
) -> int:
    """Write scenes with part masks and exact values as shards; print the path of a run file that explains them."""
    from pipeline.truth.shards import open_network, write_scenes

    opened = open_network(network, None if weights is None else Path(weights))
    share = write_scenes(Path(dest), opened, scenes, seed, scenes_per_shard)
    err.say(
        f"{counted(scenes, 'scene')} written; '{network}' classifies {100 * share:.0f} % rightly, and the others are "
        "left out"
    )
    out.say(str(Path(dest) / "run.yaml"))
    return 0


@app.command("train")
@command
def train(
    dest: Annotated[str, typer.Argument(metavar="DEST", help="folder for the weights")],
    seed: Annotated[int, typer.Option(min=0, help="seed of the training scenes and of the weights")] = 0,
    scenes: Annotated[int, typer.Option(min=64, help="number of training scenes")] = 16_000,
) -> int:
    """Train the networks plain, residual and vit, several minutes each; those already trained are kept."""
    from pipeline.truth.training import train_all

    for line in train_all(Path(dest), seed, scenes, err.say):
        out.say(line)
    return 0


if __name__ == "__main__":
    leave_after(app)
