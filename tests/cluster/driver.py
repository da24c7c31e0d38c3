"""A driver for a simulated cluster: `camatlas explain`, but workers that request a GPU compute on the CPU.

The GPUs of a simulated cluster are only numbers. The actors request one each, so that Ray plans and places the run as
in production.
"""

from collections.abc import Iterator
from functools import partial

import typer

from jobs.explain import explain
from jobs.support.console import leave_after
from pipeline.run import dataflow
from pipeline.run.cluster import worker_device
from pipeline.run.preflight import PreparedRun
from pipeline.storage.parts import Progress
from pipeline.telemetry.events import Committed, Heartbeat


def run_chunks(run: PreparedRun, progress: Progress, workers: int) -> Iterator[Heartbeat | Committed]:
    """Explain all chunks like `dataflow.run_chunks`, but on the CPU."""
    assert worker_device(run.config.compute.device) == "cuda"
    explain_on = partial(dataflow.explain_on, run.loaded.model, run.explainer_spec("cpu", workers), threads=1)
    yield from dataflow.stream_chunks(run, progress, workers, explain_on)


dataflow.run_chunks = run_chunks

if __name__ == "__main__":
    leave_after(lambda: typer.run(explain))
