"""camatlas plan: estimate the cost of a run from a short probe, without writing anything."""

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.explain import with_options
from jobs.methods import print_rows
from jobs.support.account import print_account
from jobs.support.console import amount, command, counted, err, leave_after, out
from jobs.support.mistakes import Telling
from jobs.support.progress import duration
from jobs.support.starting import set_environment
from pipeline.errors import Mistakes
from pipeline.settings.names import unknown_names
from pipeline.settings.run_file import load_config

if TYPE_CHECKING:
    from pipeline.planning.planner import Line, Plan


LATEC_MAPS = 326_790
"""Saliency maps of LATEC, a large published evaluation, for comparison (Klein and others, NeurIPS 2024)."""


@command
def plan(
    config: Annotated[str, typer.Argument(help="the run file (YAML)")],
    price: Annotated[
        float | None, typer.Option(min=0, help="price of one GPU-hour (on CPUs: worker-hour), in any currency")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="plan for the first N images only")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="number of workers, each with its own model")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key of the run file")
    ] = None,
    probe_seconds: Annotated[float, typer.Option(min=0, help="approximate time limit of the probe, in seconds")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON")] = False,
) -> int:
    """Estimate the images, passes, hours, cost and bytes of a run from a short probe; write nothing."""
    began = time.perf_counter()
    mistakes = Mistakes()
    telling = Telling(mistakes)
    loaded = load_config(config, with_options(settings, limit=limit, workers=workers), mistakes)
    mistakes.found.extend(unknown_names(loaded.explain))
    telling.tell()
    set_environment(loaded)
    from pipeline.planning.planner import plan as plan_run  # importing torch takes seconds, and --help should not
    from pipeline.run.paths import absolute
    from pipeline.run.preflight import prepare

    with telling.the_rest():
        prepared = prepare(absolute(loaded), mistakes)
    ready_seconds = time.perf_counter() - began
    if prepared.reading.draw:
        err.say(str(prepared.reading.draw))
    for note in prepared.notes():
        err.say(f"note: {note}")
    print_account(prepared.account)
    err.say("timing a few images of the run on this machine")
    estimate = plan_run(prepared, ready_seconds, probe_seconds)
    for warning in estimate.warnings:
        err.say(f"warning: {warning}")
    if as_json:
        out.say(json.dumps({**estimate.to_json(price), "labels": prepared.account.to_json()}))
        return 0
    print_rows([_row(line, estimate) for line in estimate.lines])
    for name, text in _totals(estimate, price).items():
        out.say(f"{name:<13}{text}")
    return 0


def _row(line: "Line", estimate: "Plan") -> dict[str, str]:
    return {
        "per image": line.kind,
        "": line.name,
        "forwards": amount(line.forwards),
        "at most": amount(line.forwards_bound),
        "head passes": amount(line.head_passes),
        "backwards": amount(line.backwards),
        "forwards of the run": amount(estimate.images * line.forwards),
        "time": f"{100 * line.seconds / max(estimate.image_seconds, 1e-12):.1f} %",
    }


def _totals(estimate: "Plan", price: float | None) -> dict[str, str]:
    machines, sampled = estimate.machines, estimate.sampled
    gpu = machines.device == "cuda"
    shards, chunks = counted(estimate.shards, "shard"), counted(estimate.chunks, "chunk")
    rows, parts = counted(estimate.rows, "row"), counted(estimate.chunks, "part")
    workers = counted(machines.workers, "GPU worker" if gpu else "CPU worker")
    data = f"{shards}, {chunks}, {amount(estimate.encoded_bytes, 'B')}"
    if estimate.estimated:
        data += "; estimated from the sizes of the shards, which are not read to count their images"
    totals = {
        "images": f"{'about ' if estimate.estimated else ''}{estimate.images:,} ({data})",
        "maps": _maps(estimate),
        "run folder": f"{rows} in {parts}, {amount(estimate.run_bytes, 'B')}",
        "forwards": f"{estimate.forwards:,}",
        "per image": f"{estimate.image_seconds:.3g} s of a worker, {estimate.reading_seconds:.3g} s of a CPU to read",
        "wall clock": f"{duration(estimate.wall_seconds)} with {workers}"
        f" (including {duration(estimate.start_seconds)} to start and end)",
        "GPU-hours" if gpu else "worker-hours": f"{estimate.worker_hours:.3g}",
    }
    if price is not None:
        totals["cost"] = f"{estimate.cost(price):.2f} at {price:g} per {'GPU' if gpu else 'worker'}-hour"
    each = sampled.forward_seconds
    totals["sampled"] = (
        f"{counted(sampled.images, 'image')} from {counted(sampled.shards, 'shard')}, "
        f"explained {sampled.explained} at a time"
        + ("" if each is None else f"; {1000 * each:.3g} ms per masked forward pass")
        + f"; the probe took {duration(sampled.probe_seconds)}"
    )
    return totals


def _maps(estimate: "Plan") -> str:
    compared = f" ({estimate.maps / LATEC_MAPS:.1f} times the {LATEC_MAPS:,} of LATEC)"
    return f"{estimate.maps:,}{compared if estimate.maps >= LATEC_MAPS else ''}"


if __name__ == "__main__":
    leave_after(lambda: typer.run(plan))
