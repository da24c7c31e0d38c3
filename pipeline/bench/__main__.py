"""python -m pipeline.bench: measures the overhead of the pipeline around the model, on this machine."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from pipeline.bench.lookups import LookupCost, lookup_cost
from pipeline.bench.overhead import (
    DriverCost,
    MemorySlope,
    PipelineEfficiency,
    driver_cost,
    memory_slope,
    pipeline_efficiency,
)
from pipeline.errors import CamatlasError, ConfigError
from pipeline.run.placement import CPU_THREADS
from pipeline.settings.run_file import load_config

Measured = DriverCost | PipelineEfficiency | MemorySlope | LookupCost


def main(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="run file, for --what efficiency")] = None,
    what: Annotated[str, typer.Option(help="what to measure: driver, efficiency, memory or lookup")] = "driver",
    workers: Annotated[int, typer.Option(min=1, help="number of workers, for driver and efficiency")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="threads per CPU worker, for efficiency")] = CPU_THREADS,
    chunks: Annotated[int, typer.Option(min=10, help="number of chunks, for driver")] = 6000,
    sleep: Annotated[float, typer.Option(min=0, help="seconds that a simulated worker sleeps, for driver")] = 0.5,
    images: Annotated[int, typer.Option(min=100, help="number of images, for memory; one fifth warms up")] = 20_000,
    rows: Annotated[int, typer.Option(min=10_000, help="number of rows, for lookup")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Measure the overhead of the pipeline around the model, on this machine."""
    measurements: dict[str, Callable[[], Measured]] = {
        "driver": lambda: driver_cost(workers, chunks, sleep),
        "efficiency": lambda: pipeline_efficiency(load_config(config or ""), workers, threads),
        "memory": lambda: memory_slope(images, images // 5),
        "lookup": lambda: lookup_cost(rows),
    }
    try:
        if what not in measurements:
            raise ConfigError.one("--what", f"'{what}' is not a measurement", f"one of {', '.join(measurements)}")
        if (what == "efficiency") != (config is not None):
            raise ConfigError.one("CONFIG", "--what efficiency needs a run file; the other measurements take none")
        typer.echo(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs", err=True)
        measured = measurements[what]()
    except CamatlasError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    _print(measured, as_json=as_json)


def _print(measured: Measured, *, as_json: bool) -> None:
    facts = dataclasses.asdict(measured)
    if isinstance(measured, DriverCost):
        facts["ms_per_chunk"] = measured.ms_per_chunk
    elif isinstance(measured, PipelineEfficiency):
        facts["efficiency"] = measured.efficiency
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        typer.echo(f"{name:18} {value:.4g}")


if __name__ == "__main__":
    typer.run(main)
