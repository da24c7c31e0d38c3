"""python -m pipeline.bench.device: checks and measures a device, from a checkout and without Ray."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.bench.device.needed import check_libraries
from pipeline.errors import CamatlasError


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to rehearse")] = "cuda",
    seconds: Annotated[
        float | None, typer.Option(min=1, help="for all measurements (default: 450, or 180 on a CPU)")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="keep the results in FILE, as JSON")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Check and measure a device: values, speed, waits, failures, decoding."""
    try:
        check_libraries()
        from pipeline.bench.device.sections import measured_device  # needs the libraries
        from pipeline.bench.device.tables import page

        found = measured_device(device, seconds, out, lambda text: typer.echo(text, err=True))
    except CamatlasError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    typer.echo(json.dumps(found) if as_json else page(found))


if __name__ == "__main__":
    typer.run(main)
