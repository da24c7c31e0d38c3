"""camatlas init: write a commented run file after a look at the images and the machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.support.account import print_account
from jobs.support.console import command, err, leave_after, out
from pipeline.errors import ConfigError, reason

if TYPE_CHECKING:
    from pipeline.planning.first_data import FirstData
    from pipeline.planning.first_model import ChosenModel


@command
def init(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="images: a folder, tars, Parquet files, or a list of images")
    ],
    output: Annotated[str, typer.Option("--out", help="run file to write; its JSON Schema is written beside it")] = (
        "run.yaml"
    ),
    model: Annotated[
        str | None, typer.Option("--model", help="as model.name; or a folder of transformers, or a .safetensors file")
    ] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="as model.weights")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the run file")] = False,
) -> int:
    """Look at images and the machine, and write a commented run file; print its path."""
    path = Path(output)
    _refuse_overwriting(path, force=force)
    if "://" in folder:
        hint = "write the URL as data.shards into a run file for a local folder of a few of these images"
        raise ConfigError.one("FOLDER", f"'{folder}' is a URL, and only what is on this machine is looked at", hint)
    if not Path(folder).expanduser().exists():
        raise ConfigError.one("FOLDER", f"there is no '{folder}'", "give a folder of images, or a file of them")
    err.say("looking at the model and the images")
    from pipeline.planning.first_data import find_data
    from pipeline.planning.first_model import choose_model
    from pipeline.planning.first_run_file import checked_config, free_output, notes_of, run_file_text
    from pipeline.planning.machine import this_machine

    source = Path(folder).expanduser()
    chosen = choose_model(model, weights, source)
    data = find_data(folder, chosen)
    schema = path.with_suffix(".schema.json")
    text = run_file_text(data, chosen, this_machine(), free_output(source, path.parent), schema.name)
    checked_config(text)
    _try(text, data, chosen)
    _write(path, text)
    _write(schema, _schema())
    for note in (*chosen.notes, *notes_of(data, chosen)):
        err.say(f"note: {note}")
    err.say(f"found {data.kind}")
    if data.is_whole:
        print_account(data.account)
    else:
        err.say("\n".join(data.account.lines()))
    out.say(str(path))
    return 0


def _refuse_overwriting(path: Path, *, force: bool) -> None:
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError.one("--out", f"'{path}' is no name of a run file", "such as run.yaml")
    if path.exists() and not force:
        raise ConfigError.one("--out", f"'{path}' exists", "give another name, or --force to overwrite it")


def _try(text: str, data: "FirstData", chosen: "ChosenModel") -> None:
    """Check the run file as `camatlas explain` does before its work; very many files are left to it."""
    if not data.is_whole:
        return
    from pipeline.planning.first_run_file import checked_config
    from pipeline.run.paths import absolute
    from pipeline.run.preflight import prepare

    config = checked_config(text)
    prepare(absolute(config.model_copy(update={"model": chosen.tried})))


def _schema() -> str:
    from pipeline.settings.json_schema import run_file_schema

    return json.dumps(run_file_schema(), indent=2) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError.one("--out", f"cannot write '{path}': {reason(error)}") from None


if __name__ == "__main__":
    leave_after(lambda: typer.run(init))
