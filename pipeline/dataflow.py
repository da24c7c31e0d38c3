"""The Ray Data graph, and nothing else: read -> decode -> explain -> commit, one chunk a row.

Only this file imports Ray. A row of the dataset is one chunk, packed whole into one cell, so that Ray can split and
merge blocks as it likes and never tears a chunk; blocks are kept to one chunk each, so that a chunk reaches the
model and the disk as soon as it is read.
"""

import logging
import os
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pipeline.decode import DecodedChunk, DecodeLimits, decode_chunk
from pipeline.errors import CamatlasError, StalledError, first_line
from pipeline.framing import Preprocess
from pipeline.news import Beat, Committed
from pipeline.parts import KEY_COLUMNS, Footer, Progress, publish_part
from pipeline.placement import CPU_THREADS, logical_cpus, workers_for
from pipeline.sources import Reading, Shard, chunked, read_shard
from pipeline.store import open_store
from schemas.explanation import SHARD_STAGE

if TYPE_CHECKING:  # torch stays out of the workers that only read, decode and commit
    from pipeline.explainer import ExplainerSpec
    from pipeline.preflight import PreparedRun

Block: TypeAlias = pa.Table


@dataclass(frozen=True)
class _Explained:
    table: pa.Table
    footer: Footer
    encoded_bytes: int


def run_chunks(run: "PreparedRun", progress: Progress, workers: int) -> Iterator[Beat | Committed]:
    """Explain every chunk that is not done yet, streaming, and tell what happens.

    Args:
        run: the run; its folder is claimed already.
        progress: what the folder holds; those chunks are skipped.
        workers: number of actors that hold the model.

    Raises:
        StalledError: a worker kept failing, or nothing moved for too long.
        StoreError: the output refused a part.
    """
    pending = run.pending(progress)
    if not pending:
        return
    try:
        for block in _graph(run, progress, pending, workers).iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from _unpack(block)
    except Exception as error:  # Ray's own, wrapped in as many types as it has ways to fail
        raise _told(error) from error


def _graph(run: "PreparedRun", progress: Progress, pending: list[Shard], workers: int) -> Dataset:
    """The whole pipeline on one screen."""
    _configure(run)
    device = worker_device(run.config.compute.device)
    source = ChunkSource(pending, progress, ray.put(run.reading), run.config.data.chunk_images)
    graph: Dataset = (
        ray.data.read_datasource(source, override_num_blocks=len(pending))
        .map_batches(
            _decode,
            fn_args=(run.loaded.preprocess, run.limits),
            batch_size=1,
            batch_format="pyarrow",
        )
        .map_batches(
            _Worker,
            fn_constructor_args=(ray.put(run.loaded.model), run.explainer_spec(device, workers), run.manifest.run_id),
            compute=ActorPoolStrategy(size=workers),
            batch_size=1,
            batch_format="pyarrow",
            **_actor_resources(device, workers),
        )
        .map_batches(_commit, fn_args=(run.store.url,), batch_size=1, batch_format="pyarrow")
    )
    return graph


class ChunkSource(Datasource):
    """Reads shards as chunks; one read task a shard, one block a chunk."""

    def __init__(self, shards: list[Shard], progress: Progress, reading: Any, chunk_images: int) -> None:  # noqa: ANN401
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards, self._progress = shards, progress
        self._reading, self._chunk_images = reading, chunk_images

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
                    _read,
                    shard,
                    self._progress.done.get(shard.ordinal, frozenset()),
                    self._reading,
                    self._chunk_images,
                ),
                BlockMetadata(num_rows=None, size_bytes=shard.size, input_files=None, exec_stats=None),
                per_task_row_limit=per_task_row_limit,
            )
            for shard in self._shards
        ]


def _read(shard: Shard, done: frozenset[int], reading: Any, chunk_images: int) -> Iterator[Block]:  # noqa: ANN401
    """Stream the chunks of one shard that are not done."""
    known: Reading = ray.get(reading)
    for chunk in chunked(read_shard(shard, known), shard, chunk_images):
        if chunk.ordinal not in done:
            yield _pack(chunk)


def _decode(block: Block, preprocess: Preprocess, limits: DecodeLimits) -> Iterator[Block]:
    """Decode the chunk of a block."""
    for chunk in _unpack(block):
        yield _pack(decode_chunk(chunk, preprocess, limits))


class _Worker:
    """One actor of the pool: holds the model and explains chunk after chunk."""

    def __init__(self, model: Any, spec: "ExplainerSpec", run_id: str) -> None:  # noqa: ANN401 - an object reference
        import torch

        from pipeline.explainer import Explainer
        from pipeline.model.memory import keep_freed_memory

        if spec.device == "cpu":
            torch.set_num_threads(CPU_THREADS)
            keep_freed_memory()
        self._explainer = Explainer(ray.get(model), spec)
        self._run_id = run_id

    def __call__(self, block: Block) -> Iterator[Block]:
        """Explain the chunk of a block; tells of every batch, so that progress shows and a stall does too."""
        for chunk in _unpack(block):
            yield from self._explain(chunk)

    def _explain(self, chunk: DecodedChunk) -> Iterator[Block]:
        tables = []
        for table in self._explainer.tables(chunk):
            tables.append(table)
            images = table.filter(pc.not_equal(pc.fill_null(table["error_stage"], ""), SHARD_STAGE))
            if images.num_rows:
                yield _pack(Beat(len(images["image_key"].unique())))
        rows = pa.concat_tables(tables).sort_by([(name, "ascending") for name in KEY_COLUMNS])
        yield _pack(_Explained(rows, _footer(chunk, self._run_id), chunk.encoded_bytes))


def _commit(block: Block, url: str) -> Iterator[Block]:
    """Publish the part of a chunk; news of other kinds passes through."""
    for item in _unpack(block):
        yield _pack(_published(item, url) if isinstance(item, _Explained) else item)


def _published(explained: _Explained, url: str) -> Committed:
    footer = explained.footer
    receipt = publish_part(open_store(url), explained.table, footer)
    codes = [code for code in explained.table["error_code"].to_pylist() if code is not None]
    return Committed(
        footer.shard,
        footer.chunk,
        footer.images,
        explained.encoded_bytes,
        dict(Counter(codes)),
        ours=receipt is not None,
    )


def _footer(decoded: DecodedChunk, run_id: str) -> Footer:
    chunk = decoded.chunk
    images = len(decoded.samples) + sum(failure.is_image for failure in decoded.failures)
    return Footer(run_id, chunk.shard.ordinal, chunk.ordinal, chunk.last, images)


def _pack(item: object) -> Block:
    """Put one object whole into one cell, as Ray itself would ship it between our own tasks."""
    return pa.table({"item": pa.array([pickle.dumps(item, protocol=5)], pa.large_binary())})


def _unpack(block: Block) -> Iterable[Any]:
    return (pickle.loads(cell.as_buffer()) for cell in block["item"])  # noqa: S301 - written by _pack above


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Join the cluster at `address` (or in RAY_ADDRESS), or start a local one that ends with this block.

    A connection that is there already is used and left open.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address or os.environ.get("RAY_ADDRESS"):
        ray.init(address=address or "auto", **quiet)
    else:
        ray.init(num_cpus=logical_cpus(), include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def worker_count(asked: str | int, device: str) -> int:
    """Choose the number of actors: as asked, or what the cluster that is connected holds."""
    if asked != "auto":
        return int(asked)
    resources = cluster_resources()
    return workers_for(worker_device(device), resources["CPU"], resources.get("GPU", 0))


def worker_device(asked: str) -> str:
    """Choose where the actors run: on GPUs when the cluster has any."""
    if asked != "auto":
        return asked
    return "cuda" if cluster_resources().get("GPU", 0) >= 1 else "cpu"


def cluster_resources() -> dict[str, float]:
    """CPUs, GPUs and memory of the cluster that is connected."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _actor_resources(device: str, workers: int) -> dict[str, float]:
    """Resources of one actor; never those of a plain task, or Ray would fuse reading and explaining."""
    if device == "cuda":
        return {"num_gpus": 1}
    share = min(float(CPU_THREADS), (cluster_resources()["CPU"] - 2) / workers)
    return {"num_cpus": 0.9 if share == 1 else max(share, 0.1)}


def _configure(run: "PreparedRun") -> None:
    context = DataContext.get_current()
    context.target_max_block_size = 1  # one chunk, one block
    context.max_errored_blocks = 0  # data problems are rows; anything else must be seen
    context.execution_no_progress_timeout_s = run.stall_seconds()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _told(error: BaseException) -> CamatlasError:
    """Find the sentence of ours inside an error of Ray, or tell what Ray says."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, CamatlasError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return StalledError(
        f"the run stopped: {first_line(error)}. Finished chunks are kept; run the same command again to resume."
    )
