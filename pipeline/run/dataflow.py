"""The Ray Data graph, and nothing else: read and decode -> explain and commit.

Only this module, `pipeline.run.cluster` (where Ray runs) and `pipeline.telemetry.prometheus` (its counters) import Ray.
A row of the dataset is a work unit: a chunk, or a few that travel together, packed whole into one cell, so that Ray can
split and merge blocks as it likes and never tears a chunk. Each block holds one work unit, so that a chunk reaches the
model as soon as its unit is read.

The driver pays a few milliseconds for every block and every task, whatever their size (`pipeline/bench/overhead.py`).
So there are two stages only, chunks of long runs travel together, and a worker reports once per work unit unless that
takes long.
"""

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from pipeline.data.decode import DecodedChunk
from pipeline.data.sources import Shard
from pipeline.errors import CamatlasError, StalledError, first_line
from pipeline.model.memory import FREED_MEMORY_IS_KEPT
from pipeline.run.attempts import Attempt, Attempts, Ledger, Work
from pipeline.run.cluster import cluster_resources, worker_device
from pipeline.run.loading import ReadPlan
from pipeline.run.placement import CPU_THREADS
from pipeline.run.worker import Explain, Worker, WorkerEvent
from pipeline.storage.parts import Progress
from pipeline.telemetry.events import Usage
from pipeline.telemetry.prometheus import Counters

if TYPE_CHECKING:  # torch stays out of the workers that only read, decode and commit
    from pipeline.explain.explainer import ExplainerSpec
    from pipeline.run.preflight import PreparedRun

Block: TypeAlias = pa.Table
_TOLD_AT_MOST = 8
"""Chunks named in an error."""
_UNITS_PER_WORKER = 16
"""At least so many loads for each worker, so that all end at about the same time."""


def run_chunks(run: "PreparedRun", progress: Progress, workers: int) -> Iterator[WorkerEvent]:
    """Explain every chunk that is not done yet, streaming, and tell what happens.

    Args:
        run: the run; its folder is claimed already.
        progress: what the folder holds; those chunks are skipped.
        workers: number of actors that hold the model.

    Raises:
        StalledError: a worker kept failing, or nothing moved for too long.
        StoreError: the output refused a part.
    """
    device = worker_device(run.config.compute.device)
    yield from stream_chunks(
        run, progress, workers, partial(explain_on, run.loaded.model, run.explainer_spec(device, workers))
    )


def stream_chunks(
    run: "PreparedRun", progress: Progress, workers: int, make_explain: Callable[[], Explain]
) -> Iterator[WorkerEvent]:
    """Do the same with any explanation; `make_explain` is called once in each worker."""
    pending = run.pending(progress)
    if not pending:
        return
    attempts = _RemoteLedger()
    graph = _graph(run, progress, pending, workers, make_explain, attempts)
    try:
        for bundle in graph.iter_internal_ref_bundles():
            for block in ray.get(bundle.block_refs):  # without the threads of iter_batches, which cost as much again
                yield from _unpack(block)
    except ExecutionTimeoutError as error:
        raise StalledError(_standstill(run, attempts.under_way())) from error
    except Exception as error:  # Ray's own, wrapped in as many types as it has ways to fail
        raise _told(error) from error


def _graph(
    run: "PreparedRun",
    progress: Progress,
    pending: list[Shard],
    workers: int,
    make_explain: Callable[[], Explain],
    attempts: "_RemoteLedger",
) -> Dataset:
    """The whole pipeline on one screen."""
    _configure(run)
    device = worker_device(run.config.compute.device)
    unit_bytes = run.bytes_left(progress) // (workers * _UNITS_PER_WORKER)
    source = WorkUnitSource(pending, progress, ray.put(ReadPlan.of(run, unit_bytes)), attempts)
    graph: Dataset = ray.data.read_datasource(source, override_num_blocks=len(pending)).map_batches(
        _Actor,
        fn_constructor_args=(ray.put(make_explain), run.manifest.run_id, run.store.url, attempts),
        compute=ActorPoolStrategy(
            size=workers,
            max_concurrent_calls_per_actor=2,  # one explains; the other commits, then holds the next load ready
            max_tasks_in_flight_per_actor=3,
            enable_true_multi_threading=True,  # `Worker` lets one explain at a time
        ),
        batch_size=1,
        batch_format="pyarrow",
        **_actor_options(device, workers),
    )
    return graph


class WorkUnitSource(Datasource):
    """Reads shards as decoded chunks; one task a shard, one block a load."""

    def __init__(
        self, shards: list[Shard], progress: Progress, plan: "ray.ObjectRef[ReadPlan]", attempts: Attempts
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards, self._progress, self._recipe, self._attempts = shards, progress, plan, attempts

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self._shards)

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002 - one task a shard, whatever Ray asks for
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,  # noqa: ARG002 - not needed
    ) -> list[ReadTask]:
        """Make one task for each shard."""
        return [
            ReadTask(
                partial(
                    _read, shard, self._progress.done.get(shard.ordinal, frozenset()), self._recipe, self._attempts
                ),
                BlockMetadata(num_rows=None, size_bytes=shard.size, input_files=None, exec_stats=None),
                per_task_row_limit=per_task_row_limit,
            )
            for shard in self._shards
        ]


def _read(shard: Shard, done: frozenset[int], plan: "ray.ObjectRef[ReadPlan]", attempts: Attempts) -> Iterator[Block]:
    known: ReadPlan = ray.get(plan)
    return map(_pack, known.work_units(shard, done, attempts))


class _Actor:
    """One actor of the pool."""

    def __init__(self, make_explain: "ray.ObjectRef[Any]", run_id: str, url: str, attempts: Attempts) -> None:
        self._worker = Worker(ray.get(make_explain)(), run_id, url, attempts)
        self._counters = Counters(run_id)

    def __call__(self, block: Block) -> Iterator[Block]:
        """Explain and commit the load of a block."""
        for event in self._worker.tell(_unpack(block)):  # Ray takes a generator, and no other iterator
            self._counters.note(event)
            yield _pack(event)


class _RemoteLedger:
    """The ledger of a run, in an actor of its own; should it die itself, it starts empty and nothing is lost."""

    def __init__(self) -> None:
        ledger: Any = ray.remote(Ledger)
        self._actor = ledger.options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()

    def begin(self, work: Work) -> Attempt:
        """Note that a chunk is begun."""
        attempt: Attempt = ray.get(self._actor.begin.remote(work))
        return attempt

    def reach(self, work: Work, image: int | None) -> None:
        """Note that a careful attempt is at an image, before it is, or past all of them."""
        ray.get(self._actor.reach.remote(work, image))

    def end(self, work: Work) -> None:
        """Forget a chunk that is done."""
        self._actor.end.remote(work)

    def under_way(self) -> list[Work]:
        """List what was begun and has not ended; nothing when the ledger itself does not answer."""
        try:
            begun: list[Work] = ray.get(self._actor.under_way.remote(), timeout=10)
        except RayError:
            return []
        return begun


def explain_on(model: Any, spec: "ExplainerSpec", threads: int = CPU_THREADS) -> Explain:  # noqa: ANN401 - a module
    """Make ready what a worker of a real run does, on so many threads of a CPU."""
    import torch

    from pipeline.explain.explainer import Explainer

    if spec.device == "cpu":
        torch.set_num_threads(threads)
    explainer = Explainer(model, spec)

    def tables(chunk: DecodedChunk) -> Iterator[pa.Table | Usage]:
        try:
            yield from explainer.tables(chunk)
            yield explainer.usage()
        except torch.AcceleratorError as error:  # the device can be used no more by this process
            os.write(2, f"camatlas: the device failed: {first_line(error)}\n".encode())
            os._exit(1)  # another takes its place, and is careful

    return tables


def _pack(items: Sequence[object]) -> Block:
    """Put objects whole into one cell, as Ray itself would ship them between our own tasks."""
    return pa.table({"items": pa.array([pickle.dumps(items, protocol=5)], pa.large_binary())})


def _unpack(block: Block) -> Iterator[Any]:
    for cell in block["items"] if block.num_rows else ():  # a task without any load gives a block without columns
        yield from pickle.loads(cell.as_buffer())  # noqa: S301 - written by _pack above


def _actor_options(device: str, workers: int) -> dict[str, Any]:
    """Resources of one actor, never those of a plain task (or Ray would fuse the two stages), and its environment."""
    if device == "cuda":
        return {"num_gpus": 1}
    share = min(float(CPU_THREADS), (cluster_resources()["CPU"] - 2) / workers)
    options: dict[str, Any] = {"num_cpus": 0.9 if share == 1 else max(share, 0.1)}
    if not FREED_MEMORY_IS_KEPT.items() <= os.environ.items():  # a cluster that others started
        options["runtime_env"] = {"env_vars": FREED_MEMORY_IS_KEPT}
    return options


def _configure(run: "PreparedRun") -> None:
    context = DataContext.get_current()
    context.target_max_block_size = 1  # one chunk, one block
    context.max_errored_blocks = 0  # data problems are rows; anything else must be seen
    context.execution_no_progress_timeout_s = run.stall_seconds()
    context.memory_usage_poll_interval_s = None  # reading it costs a worker of gigabytes a tenth of a core
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _standstill(run: "PreparedRun", begun: Sequence[Work]) -> str:
    """Say that nothing moved for too long, and what was at hand."""
    shards = {shard.ordinal: shard.name for shard in run.shards}
    at_hand = [f"{work.stage} chunk {work.chunk} of {shards[work.shard]}" for work in begun[:_TOLD_AT_MOST]]
    more = f" and {len(begun) - _TOLD_AT_MOST} more" if len(begun) > _TOLD_AT_MOST else ""
    return (
        f"the run stopped: nothing moved for {run.stall_seconds()} s (compute.stall_seconds); at hand: "
        f"{', '.join(at_hand) or 'nothing'}{more}. A worker hangs, or the cluster gave it no room. Finished chunks are "
        "kept: run the same command again to resume, with a longer compute.stall_seconds if the model is that slow."
    )


def _told(error: BaseException) -> CamatlasError:
    """Find the sentence of ours inside an error of Ray, or tell what Ray says.

    The innermost one: Ray makes errors that are of our kind too, and say a whole traceback.
    """
    found: CamatlasError | None = None
    seen: BaseException | None = error
    while seen is not None:
        found = seen if isinstance(seen, CamatlasError) else found
        seen = getattr(seen, "cause", None) or seen.__cause__
    return found or StalledError(
        f"the run stopped: {first_line(error)}. Finished chunks are kept; run the same command again to resume."
    )
