"""camatlas plan: what a run will take, from a short probe; nothing is written."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.explain import with_options
from jobs.methods import print_rows
from jobs.support.console import amount, command, err, leave_after, out
from jobs.support.progress import duration
from pipeline.errors import Mistakes
from pipeline.settings.run_file import load_config

if TYPE_CHECKING:
    from pipeline.planning.planner import Line, Plan


@command
def plan(
    config: Annotated[str, typer.Argument(help="the run file (YAML)")],
    price: Annotated[float | None, typer.Option(min=0, help="of one GPU-hour (worker-hour), in any currency")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first N images")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="actors that hold the model")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key")] = None,
    probe_seconds: Annotated[float, typer.Option(min=0, help="about how long the probe may take")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
) -> int:
    """Tell what a run will take: images, passes, hours, cost, bytes; from a short probe, and nothing is written."""
    began = time.perf_counter()
    mistakes = Mistakes()
    loaded = load_config(config, with_options(settings, limit=limit, workers=workers), mistakes)
    from pipeline.planning.planner import plan as planned  # torch costs seconds; asking for help should not
    from pipeline.run.preflight import absolute, prepare

    prepared = prepare(absolute(loaded), mistakes)
    ready_seconds = time.perf_counter() - began
    if prepared.reading.draw:
        err.say(str(prepared.reading.draw))
    err.say("probing this machine with a few images of the run")
    found = planned(prepared, ready_seconds, probe_seconds)
    if as_json:
        out.say(json.dumps(found.to_json(price)))
        return 0
    print_rows([_row(line, found) for line in found.lines])
    for name, text in _totals(found, price).items():
        out.say(f"{name:<13}{text}")
    return 0


def _row(line: "Line", found: "Plan") -> dict[str, str]:
    return {
        "per image": line.kind,
        "": line.name,
        "forwards": amount(line.forwards),
        "at most": amount(line.forwards_bound),
        "head passes": amount(line.head_passes),
        "backwards": amount(line.backwards),
        "forwards of the run": amount(found.images * line.forwards),
        "time": f"{100 * line.seconds / max(found.image_seconds, 1e-12):.1f} %",
    }


def _totals(found: "Plan", price: float | None) -> dict[str, str]:
    machines, sampled = found.machines, found.sampled
    gpu = machines.device == "cuda"
    read = f"{found.shards} shards, {found.chunks} chunks, {amount(found.encoded_bytes, 'B')}"
    if found.estimated:
        read += "; an estimate by the sizes of shards, which are not fetched to be counted"
    totals = {
        "images": f"{'about ' if found.estimated else ''}{found.images:,} ({read})",
        "run folder": f"{found.rows:,} rows in {found.chunks} parts, {amount(found.run_bytes, 'B')}",
        "forwards": f"{found.forwards:,}",
        "an image": f"{found.image_seconds:.3g} s of a worker, {found.reading_seconds:.3g} s of a CPU to read it",
        "wall clock": f"{duration(found.wall_seconds)} with {machines.workers} {'GPU' if gpu else 'CPU'} workers"
        f" ({duration(found.start_seconds)} of it to start and end)",
        "GPU-hours" if gpu else "worker-hours": f"{found.worker_hours:.3g}",
    }
    if price is not None:
        totals["cost"] = f"{found.cost(price):.2f} at {price:g} per {'GPU' if gpu else 'worker'}-hour"
    each = sampled.forward_seconds
    totals["sampled"] = (
        f"{sampled.images} images of {sampled.shards} shards, explained {sampled.explained} at a time"
        + ("" if each is None else f"; {1000 * each:.3g} ms a masked forward")
        + f"; {duration(sampled.probe_seconds)}"
    )
    return totals


if __name__ == "__main__":
    leave_after(lambda: typer.run(plan))
