"""The overhead of the pipeline around the model: its driver, its workers, its memory.

`python -m pipeline.bench` runs these measurements.
"""

import io
import itertools
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.bench.memory import anonymous_megabytes, slope, worker_processes
from pipeline.data.decode import DecodedChunk
from pipeline.data.sources.shards import Failure
from pipeline.errors import ConfigError
from pipeline.explain.rows import failure_row, to_table
from pipeline.run.placement import CPU_THREADS
from pipeline.settings.run_file import RunConfig, parse_config
from pipeline.telemetry.events import Committed, Heartbeat, Usage

if TYPE_CHECKING:
    from pipeline.run.preflight import PreparedRun
    from pipeline.run.worker import Explain

WorkerEvents = Iterator[Heartbeat | Committed]
_EDGE_SHARE = 0.1
"""Share of a run at each end that is not measured, because workers start and end one after the other."""


@dataclass(frozen=True)
class DriverCost:
    """CPU time of the driver process, all threads, while simulated workers sleep.

    Attributes:
        workers: number of actors.
        chunks: number of chunks committed in the measured time.
        cpu_seconds, seconds: CPU time and wall-clock time.
    """

    workers: int
    chunks: int
    cpu_seconds: float
    seconds: float

    @property
    def ms_per_chunk(self) -> float:
        """Return the CPU time per chunk in milliseconds."""
        return 1000 * self.cpu_seconds / self.chunks


@dataclass(frozen=True)
class PipelineEfficiency:
    """Images per second of one process that does everything in a loop, and of the pipeline."""

    workers: int
    bare: float
    pipeline: float

    @property
    def efficiency(self) -> float:
        """Return the pipeline's rate as a share of what its workers would reach in bare loops."""
        return self.pipeline / (self.workers * self.bare)


@dataclass(frozen=True)
class MemorySlope:
    """Growth of anonymous memory in MB per 10,000 images, after the first `warm_up` images."""

    images: int
    warm_up: int
    driver: float
    worker: float
    driver_mb: float
    worker_mb: float


@dataclass(frozen=True)
class Mark:
    """The progress of a run at the moment when a commit is reported."""

    chunks: int
    images: int
    seconds: float
    cpu_seconds: float


def driver_cost(workers: int = 64, chunks: int = 6000, sleep_seconds: float = 0.5) -> DriverCost:
    """Run the real graph on chunks of one small image each, with workers that only sleep."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), images=chunks, images_per_shard=100)
        run = _demo_run(Path(folder), chunk_images=1, methods=["gradcam"])
        asleep = partial(_sleeping, sleep_seconds, run.explainer_spec("cpu", workers).schema)
        first, last = measured_span(list(_marks(_streamed(run, workers, asleep, cpus=workers + 4))))
    return DriverCost(
        workers, last.chunks - first.chunks, last.cpu_seconds - first.cpu_seconds, last.seconds - first.seconds
    )


def pipeline_efficiency(config: RunConfig, workers: int = 1, threads: int = CPU_THREADS) -> PipelineEfficiency:
    """Time a run file in a bare loop, then in the pipeline, then in the loop again, with `threads` per worker.

    Reading and the driver need CPU time too; a machine with fewer than `workers * threads + 1` cores has none for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _prepared(
            config.model_copy(update={"output": config.output.model_copy(update={"path": f"{folder}/run"})})
        )
        before = bare_rate(run, threads)
        first, last = measured_span(list(_marks(_streamed(run, workers, _explaining(run, threads)))))
        after = bare_rate(run, threads)
    return PipelineEfficiency(
        workers, fmean((before, after)), (last.images - first.images) / (last.seconds - first.seconds)
    )


def memory_slope(images: int = 20_000, warm_up: int = 4_000) -> MemorySlope:
    """Explain small scenes with the demo's network, and sample the memory of driver and worker."""
    samples: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), images=images, images_per_shard=1_000)
        run = _demo_run(Path(folder), chunk_images=50, methods=["gradcam", "layercam"], metrics=["average_drop"])
        for mark in _marks(_streamed(run, 1, _explaining(run))):
            worker = sum(map(anonymous_megabytes, worker_processes()))
            samples.append((mark.images, anonymous_megabytes(os.getpid()), worker))
    counted, drivers, workers = zip(*(sample for sample in samples if sample[0] >= warm_up), strict=True)
    return MemorySlope(
        images, warm_up, slope(counted, drivers) * 1e4, slope(counted, workers) * 1e4, drivers[-1], workers[-1]
    )


def bare_rate(run: "PreparedRun", threads: int = CPU_THREADS, least_seconds: float = 20.0) -> float:
    """Measure images per second of one process that reads, decodes, explains and encodes in a loop."""
    from pipeline.model.memory import keep_freed_memory
    from pipeline.run.loading import ReadPlan
    from pipeline.run.worker import footer_of, sorted_rows
    from pipeline.storage.parts import encode_part

    keep_freed_memory()  # as workers do
    explain = _explaining(run, threads)()
    plan = ReadPlan.of(run, unit_bytes=0)
    chunks = itertools.chain.from_iterable(unit for shard in run.shards for unit in plan.work_units(shard))
    images, began = 0, None
    for chunk in chunks:
        rows = [item for item in explain(chunk) if not isinstance(item, Usage)]
        encode_part(sorted_rows(rows), footer_of(chunk, run.manifest.run_id))
        if began is None:  # the first chunk warms up
            began = time.perf_counter()
            continue
        images += len(chunk.samples)
        if time.perf_counter() - began >= least_seconds:
            break
    if not images or began is None:
        raise ConfigError.one("data.shards", "a bare loop needs at least two chunks", "lower data.chunk_images")
    return images / (time.perf_counter() - began)


def measured_span(marks: Sequence[Mark]) -> tuple[Mark, Mark]:
    """Return the marks between which a run is measured, without its start and its end."""
    if len(marks) < 3:
        raise ConfigError.one("data", f"{len(marks)} chunks are too few to measure", "give more images")
    edge = max(1, int(len(marks) * _EDGE_SHARE))
    return marks[edge - 1], marks[-edge]


def write_shards(folder: Path, images: int, images_per_shard: int) -> None:
    """Write shards of small scenes: at most 64 different ones, repeated under new keys."""
    from pipeline.demo.scenes import make_scene

    scenes = [_encoded(make_scene(index).image.resize((64, 64))) for index in range(min(64, images))]
    (folder / "shards").mkdir()
    for first in range(0, images, images_per_shard):
        with tarfile.open(folder / "shards" / f"small-{first:08d}.tar", "w") as tar:
            for index in range(first, min(images, first + images_per_shard)):
                info = tarfile.TarInfo(f"image_{index:08d}.jpg")
                info.size = len(scenes[index % len(scenes)])
                tar.addfile(info, io.BytesIO(scenes[index % len(scenes)]))


def _encoded(image: Any) -> bytes:  # noqa: ANN401 - a Pillow image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def _demo_run(folder: Path, chunk_images: int, methods: list[str], metrics: Sequence[str] = ()) -> "PreparedRun":
    from pipeline.demo.data import run_file

    fields: dict[str, Any] = run_file(folder)
    fields["data"] = {"shards": f"{folder}/shards", "chunk_images": chunk_images}
    fields["explain"] = {"methods": methods, "metrics": list(metrics)}
    return _prepared(parse_config(fields)[0])


def _prepared(config: RunConfig) -> "PreparedRun":
    from pipeline.run.paths import absolute
    from pipeline.run.preflight import prepare
    from pipeline.storage.ownership import take_ownership

    run = prepare(absolute(config))
    take_ownership(run.store, run.manifest)
    return run


def _explaining(run: "PreparedRun", threads: int = CPU_THREADS) -> "Callable[[], Explain]":
    from pipeline.run.dataflow import explain_on

    device = run.config.compute.device
    return partial(explain_on, run.loaded.model, run.explainer_spec("cpu" if device == "auto" else device, 1), threads)


def _sleeping(seconds: float, schema: pa.Schema) -> "Explain":
    """Make an explain function that sleeps and yields one small row per image, without importing torch."""

    def explain(chunk: DecodedChunk) -> Iterator[pa.Table]:
        time.sleep(seconds)
        shard = chunk.chunk.shard.name
        failures = [Failure(sample.key, shard, "explain", "simulated", "") for sample in chunk.samples]
        yield to_table([failure_row(failure, chunk.chunk.ordinal) for failure in failures], schema)

    return explain


def _streamed(
    run: "PreparedRun", workers: int, make_explain: "Callable[[], Explain]", cpus: int | None = None
) -> WorkerEvents:
    from pipeline.run.cluster import connected
    from pipeline.run.dataflow import stream_chunks
    from pipeline.storage.parts import progress

    with connected(None, cpus):
        yield from stream_chunks(run, progress(run.store), workers, make_explain)


def _marks(events: WorkerEvents) -> Iterator[Mark]:
    chunks = images = 0
    for event in events:
        if isinstance(event, Committed):
            chunks, images = chunks + 1, images + event.images
            yield Mark(chunks, images, time.perf_counter(), time.process_time())
