"""The Ray Data graph of a run: read and decode -> explain and commit.

Only this module, `pipeline.run.cluster` (where Ray runs), `pipeline.run.shipping` (what workers are sent) and
`pipeline.telemetry.prometheus` (its counters) import Ray.
A row of the dataset is a work unit: one chunk, or a few. It is pickled into a single cell, so that Ray can split and
merge blocks without splitting a chunk. Each block holds one work unit, so that a chunk reaches the model as soon as its
unit is read.

The driver spends a few milliseconds on every block and every task, whatever their size (`pipeline/bench/overhead.py`).
So there are only two stages, chunks of long runs are grouped, and a worker reports once per work unit unless the unit
takes long.
"""

import logging
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from pipeline.data.decode import DecodedChunk
from pipeline.data.sources import Shard
from pipeline.errors import StalledError
from pipeline.run.blocks import Block, pack, unpack
from pipeline.run.cluster import cluster_resources, missing_gpus, worker_device
from pipeline.run.ledger import Attempt, Attempts, Ledger, Work
from pipeline.run.loading import ReadPlan
from pipeline.run.placement import CPU_THREADS, WORKER_ENVIRONMENT
from pipeline.run.reasons import unwrapped
from pipeline.run.shipping import ship
from pipeline.run.worker import Explain, Rows, Worker, WorkerEvent
from pipeline.settings.libraries import import_torchvision
from pipeline.storage.parts import Progress
from pipeline.telemetry.events import Usage
from pipeline.telemetry.prometheus import Counters

if TYPE_CHECKING:  # torch stays out of the workers that only read, decode and commit
    from pipeline.explain.explainer import ExplainerSpec
    from pipeline.run.preflight import PreparedRun

_MOST_NAMED = 8
"""Most chunks named in an error message."""
_NO_ROOM = "A worker hangs, or the cluster has no room for one"
_UNITS_PER_WORKER = 16
"""Least number of work units per worker, so that all workers finish at about the same time."""


def run_chunks(run: "PreparedRun", progress: Progress, workers: int) -> Generator[WorkerEvent, None, None]:
    """Explain every chunk that is not done yet, and stream the events of the workers.

    Args:
        run: the run; it already owns its folder.
        progress: the chunks in the folder, which are skipped.
        workers: number of actors that hold the model.

    Raises:
        StalledError: a worker kept failing, or there was no progress for too long.
        StoreError: a part could not be published.
    """
    from pipeline.model.capturing import drop_capturing_hooks

    device = worker_device(run.config.compute.device)
    drop_capturing_hooks(run.loaded.model)
    yield from stream_chunks(
        run, progress, workers, partial(explain_on, run.loaded.model, run.explainer_spec(device, workers))
    )


def stream_chunks(
    run: "PreparedRun", progress: Progress, workers: int, make_explain: Callable[[], Explain]
) -> Generator[WorkerEvent, None, None]:
    """Run the graph with any explain function; `make_explain` is called once in each worker."""
    pending = run.pending(progress)
    if not pending:
        return
    attempts = _RemoteLedger()
    try:
        graph = _graph(run, progress, pending, workers, make_explain, attempts)
        for bundle in graph.iter_internal_ref_bundles():
            for block in ray.get(bundle.block_refs):  # the threads of iter_batches would double the cost
                yield from unpack(block)
    except ExecutionTimeoutError as error:
        raise StalledError(_stall_message(run, attempts.under_way(), workers)) from error
    except Exception as error:  # Ray wraps errors in many different types
        raise unwrapped(error) from error


def _graph(
    run: "PreparedRun",
    progress: Progress,
    pending: list[Shard],
    workers: int,
    make_explain: Callable[[], Explain],
    attempts: "_RemoteLedger",
) -> Dataset:
    """Build the graph of both stages."""
    _configure(run)
    device = worker_device(run.config.compute.device)
    unit_bytes = run.bytes_left(progress) // (workers * _UNITS_PER_WORKER)
    source = WorkUnitSource(pending, progress, ship(ReadPlan.of(run, unit_bytes), run.config, "data"), attempts)
    graph: Dataset = ray.data.read_datasource(source, override_num_blocks=len(pending)).map_batches(
        _Actor,
        fn_constructor_args=(
            ship(make_explain, run.config, "model.name"),
            run.manifest.run_id,
            run.store.url,
            attempts,
        ),
        fn_constructor_kwargs={"torchvision": "torchvision" in sys.modules},
        compute=ActorPoolStrategy(
            size=workers,
            max_concurrent_calls_per_actor=2,  # one explains; the other commits, then holds the next work unit ready
            max_tasks_in_flight_per_actor=3,
            enable_true_multi_threading=True,  # `Worker` lets one explain at a time
        ),
        batch_size=1,
        batch_format="pyarrow",
        **_actor_options(device, workers, run.config.compute.gpus_per_worker),
    )
    return graph


class WorkUnitSource(Datasource):
    """Reads shards as decoded chunks: one task per shard, one block per work unit."""

    def __init__(
        self, shards: list[Shard], progress: Progress, plan: "ray.ObjectRef[ReadPlan]", attempts: Attempts
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards, self._progress, self._plan, self._attempts = shards, progress, plan, attempts

    def estimate_inmemory_data_size(self) -> int:
        """Return the total bytes of all shards."""
        return sum(shard.size for shard in self._shards)

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002 - always one task per shard
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,  # noqa: ARG002 - not needed
    ) -> list[ReadTask]:
        """Make one task per shard."""
        return [
            ReadTask(
                partial(_read, shard, self._progress.done.get(shard.ordinal, frozenset()), self._plan, self._attempts),
                BlockMetadata(num_rows=None, size_bytes=shard.size, input_files=None, exec_stats=None),
                per_task_row_limit=per_task_row_limit,
            )
            for shard in self._shards
        ]


def _read(shard: Shard, done: frozenset[int], plan: "ray.ObjectRef[ReadPlan]", attempts: Attempts) -> Iterator[Block]:
    read_plan: ReadPlan = ray.get(plan)
    return map(pack, read_plan.work_units(shard, done, attempts))


class _Actor:
    """An actor of the worker pool."""

    def __init__(
        self, make_explain: "ray.ObjectRef[Any]", run_id: str, url: str, attempts: Attempts, *, torchvision: bool
    ) -> None:
        if torchvision:  # unpickling the model would import all of it
            import_torchvision()
        self._worker = Worker(ray.get(make_explain)(), run_id, url, attempts)
        self._counters = Counters(run_id)

    def __call__(self, block: Block) -> Iterator[Block]:
        """Explain and commit the work unit of a block."""
        for events in self._worker.process(unpack(block)):  # Ray accepts generators only, no other iterators
            self._counters.note(events)
            yield pack(events)


class _RemoteLedger:
    """The ledger of a run, in a separate actor; if that dies, it restarts empty and attempts count from zero."""

    def __init__(self) -> None:
        ledger: Any = ray.remote(Ledger)
        self._actor = ledger.options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()

    def begin(self, work: Work) -> Attempt:
        """Record that a step begins, and return how to attempt it."""
        attempt: Attempt = ray.get(self._actor.begin.remote(work))
        return attempt

    def reach(self, work: Work, image: int | None) -> None:
        """Record that an isolated attempt is about to take an image, or has passed all of them (None)."""
        ray.get(self._actor.reach.remote(work, image))

    def fail(self, work: Work, reason: str) -> None:
        """Record why the present attempt ends; waits, because this process ends next."""
        ray.get(self._actor.fail.remote(work, reason))

    def end(self, work: Work) -> None:
        """Forget a finished step."""
        self._actor.end.remote(work)

    def under_way(self) -> list[Work]:
        """List the steps in progress; none when the ledger does not answer."""
        try:
            steps: list[Work] = ray.get(self._actor.under_way.remote(), timeout=10)
        except RayError:
            return []
        return steps


def explain_on(model: Any, spec: "ExplainerSpec", threads: int = CPU_THREADS) -> Explain:  # noqa: ANN401 - a module
    """Make the explain function of a real run's worker, which uses `threads` threads on a CPU."""
    import torch

    from pipeline.explain.explainer import Explainer
    from pipeline.model.capturing import announce_classes

    announce_classes(model)
    if spec.device == "cpu":
        torch.set_num_threads(threads)
    explainer = Explainer(model, spec)

    def explain(chunk: DecodedChunk) -> Iterator[Rows | Usage]:
        yield from explainer.explained(chunk)
        yield explainer.usage()

    return explain


def _actor_options(device: str, workers: int, gpus_per_worker: float) -> dict[str, Any]:
    """Return the resources and environment of an actor; with a task's resources, Ray would fuse the two stages."""
    if device == "cuda":
        return {"num_gpus": gpus_per_worker}
    share = min(float(CPU_THREADS), (cluster_resources()["CPU"] - 2) / workers)
    options: dict[str, Any] = {"num_cpus": 0.9 if share == 1 else max(share, 0.1)}
    if not WORKER_ENVIRONMENT.items() <= os.environ.items():  # a joined cluster was started without them
        options["runtime_env"] = {"env_vars": WORKER_ENVIRONMENT}
    return options


def _configure(run: "PreparedRun") -> None:
    context = DataContext.get_current()
    context.target_max_block_size = 1  # one work unit per block
    context.max_errored_blocks = 0  # data problems are failure rows; any other error must surface
    context.execution_no_progress_timeout_s = run.stall_seconds()
    context.memory_usage_poll_interval_s = None  # polling costs a worker of gigabytes a tenth of a core
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _stall_message(run: "PreparedRun", steps: Sequence[Work], workers: int) -> str:
    """Describe a stall: how long there was no progress, which steps had not ended, and which GPUs are missing."""
    shards = {shard.ordinal: shard.name for shard in run.shards}
    named = [f"{work.stage} chunk {work.chunk} of {shards[work.shard]}" for work in steps[:_MOST_NAMED]]
    more = f" and {len(steps) - _MOST_NAMED} more" if len(steps) > _MOST_NAMED else ""
    missing = ""
    with suppress(Exception):  # the cluster may be gone
        missing = missing_gpus(run.config.compute, workers)
    return (
        f"the run stopped: no progress for {run.stall_seconds()} s (compute.stall_seconds). In progress: "
        f"{', '.join(named) or 'nothing'}{more}. {missing[:1].upper() + missing[1:] or _NO_ROOM}. Finished chunks "
        "are kept: run the same command again to resume, with a larger compute.stall_seconds if the model is slow."
    )
