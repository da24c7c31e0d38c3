"""python -m jobs.bench_pipeline: what the pipeline costs around the model: its driver, its workers, its memory."""

import dataclasses
import io
import itertools
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
import typer

from jobs.console import command, err, leave_after, out
from jobs.lookups import LookupCost, lookup_cost
from jobs.memory import anonymous_megabytes, slope, worker_processes
from pipeline.config import RunConfig, load_config, parse_config
from pipeline.decode import DecodedChunk
from pipeline.errors import ConfigError
from pipeline.news import Beat, Committed
from pipeline.placement import CPU_THREADS
from pipeline.rows import failure_row, to_table
from pipeline.sources.shards import Failure

if TYPE_CHECKING:
    from pipeline.preflight import PreparedRun
    from pipeline.worker import Explain

News = Iterator[Beat | Committed]
_SETTLED = 0.1
"""Share of a run at either end that is not measured: workers start one after the other, and end so."""


@dataclass(frozen=True)
class DriverCost:
    """CPU time of the driver's process, all threads, while simulated workers sleep.

    Attributes:
        workers: actors.
        chunks: that were committed in the measured time.
        cpu_seconds, seconds: CPU time and time that passed.
    """

    workers: int
    chunks: int
    cpu_seconds: float
    seconds: float

    @property
    def ms_per_chunk(self) -> float:
        """CPU time of one chunk in milliseconds."""
        return 1000 * self.cpu_seconds / self.chunks


@dataclass(frozen=True)
class PipelineEfficiency:
    """Rates in images per second: of one process that does everything in a loop, and of the pipeline."""

    workers: int
    bare: float
    pipeline: float

    @property
    def efficiency(self) -> float:
        """The pipeline's rate as a share of what its workers would reach in bare loops."""
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
    """Where a run stood when a commit was told of."""

    chunks: int
    images: int
    seconds: float
    cpu_seconds: float


def driver_cost(workers: int = 64, chunks: int = 6000, sleep_seconds: float = 0.5) -> DriverCost:
    """Run the real graph with workers that only sleep, one chunk of one small image after the other."""
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), images=chunks, images_per_shard=100)
        run = _demo_run(Path(folder), chunk_images=1, methods=["gradcam"])
        asleep = partial(_sleeping, sleep_seconds, run.explainer_spec("cpu", workers).schema)
        first, last = settled(list(_marks(_streamed(run, workers, asleep, cpus=workers + 4))))
    return DriverCost(
        workers, last.chunks - first.chunks, last.cpu_seconds - first.cpu_seconds, last.seconds - first.seconds
    )


def pipeline_efficiency(config: RunConfig, workers: int = 1, threads: int = CPU_THREADS) -> PipelineEfficiency:
    """Time a run file in a bare loop, then through the pipeline, then in the loop again; a worker has so many threads.

    Reading and the driver need CPU time too: a machine of fewer cores than `workers * threads + 1` has none for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _prepared(
            config.model_copy(update={"output": config.output.model_copy(update={"path": f"{folder}/run"})})
        )
        before = bare_rate(run, threads)
        first, last = settled(list(_marks(_streamed(run, workers, _explaining(run, threads)))))
        after = bare_rate(run, threads)
    return PipelineEfficiency(
        workers, fmean((before, after)), (last.images - first.images) / (last.seconds - first.seconds)
    )


def memory_slope(images: int = 20_000, warm_up: int = 4_000) -> MemorySlope:
    """Explain small scenes by the demonstration's network, and watch the memory of driver and worker."""
    seen: list[tuple[int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), images=images, images_per_shard=1_000)
        run = _demo_run(Path(folder), chunk_images=50, methods=["gradcam", "layercam"], metrics=["average_drop"])
        for mark in _marks(_streamed(run, 1, _explaining(run))):
            worker = sum(map(anonymous_megabytes, worker_processes()))
            seen.append((mark.images, anonymous_megabytes(os.getpid()), worker))
    counted, drivers, workers = zip(*(each for each in seen if each[0] >= warm_up), strict=True)
    return MemorySlope(
        images, warm_up, slope(counted, drivers) * 1e4, slope(counted, workers) * 1e4, drivers[-1], workers[-1]
    )


def bare_rate(run: "PreparedRun", threads: int = CPU_THREADS, least_seconds: float = 20.0) -> float:
    """Images per second of one process that reads, decodes, explains and encodes in a loop, as long as asked."""
    from pipeline.loads import Recipe
    from pipeline.model.memory import keep_freed_memory
    from pipeline.parts import encode_part
    from pipeline.worker import footer_of, sorted_rows

    keep_freed_memory()  # as workers do
    explain = _explaining(run, threads)()
    recipe = Recipe.of(run, load_bytes=0)
    chunks = itertools.chain.from_iterable(load for shard in run.shards for load in recipe.loads(shard))
    images, began = 0, None
    for chunk in chunks:
        encode_part(sorted_rows(explain(chunk)), footer_of(chunk, run.manifest.run_id))
        if began is None:  # the first chunk warms up
            began = time.perf_counter()
            continue
        images += len(chunk.samples)
        if time.perf_counter() - began >= least_seconds:
            break
    if not images or began is None:
        raise ConfigError.one("data.shards", "a bare loop needs at least two chunks", "lower data.chunk_images")
    return images / (time.perf_counter() - began)


def settled(marks: Sequence[Mark]) -> tuple[Mark, Mark]:
    """Give the marks between which a run is measured: without its start and its end."""
    if len(marks) < 3:
        raise ConfigError.one("data", f"{len(marks)} chunks are too few to measure", "give more images")
    edge = max(1, int(len(marks) * _SETTLED))
    return marks[edge - 1], marks[-edge]


def write_shards(folder: Path, images: int, images_per_shard: int) -> None:
    """Write shards of small scenes; 64 of them, again and again under new keys."""
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
    from pipeline.claim import claim
    from pipeline.preflight import absolute, prepare

    run = prepare(absolute(config))
    claim(run.store, run.manifest)
    return run


def _explaining(run: "PreparedRun", threads: int = CPU_THREADS) -> "Callable[[], Explain]":
    from pipeline.dataflow import explain_on

    device = run.config.compute.device
    return partial(explain_on, run.loaded.model, run.explainer_spec("cpu" if device == "auto" else device, 1), threads)


def _sleeping(seconds: float, schema: pa.Schema) -> "Explain":
    """Make a worker that sleeps and gives one small row an image; torch stays out of its process."""

    def explain(chunk: DecodedChunk) -> Iterator[pa.Table]:
        time.sleep(seconds)
        shard = chunk.chunk.shard.name
        failures = [Failure(sample.key, shard, "explain", "simulated", "") for sample in chunk.samples]
        yield to_table([failure_row(failure, chunk.chunk.ordinal) for failure in failures], schema)

    return explain


def _streamed(run: "PreparedRun", workers: int, make_explain: "Callable[[], Explain]", cpus: int | None = None) -> News:
    from pipeline.cluster import connected
    from pipeline.dataflow import stream_chunks
    from pipeline.parts import progress

    with connected(None, cpus):
        yield from stream_chunks(run, progress(run.store), workers, make_explain)


def _marks(news: News) -> Iterator[Mark]:
    chunks = images = 0
    for item in news:
        if isinstance(item, Committed):
            chunks, images = chunks + 1, images + item.images
            yield Mark(chunks, images, time.perf_counter(), time.process_time())


@command
def bench_pipeline(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="run file of --what efficiency")] = None,
    what: Annotated[str, typer.Option(help="driver, efficiency, memory or lookup")] = "driver",
    workers: Annotated[int, typer.Option(min=1, help="actors; for driver and efficiency")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="of a worker on CPUs; for efficiency")] = CPU_THREADS,
    chunks: Annotated[int, typer.Option(min=10, help="for driver")] = 6000,
    sleep: Annotated[float, typer.Option(min=0, help="seconds a simulated worker sleeps; for driver")] = 0.5,
    images: Annotated[int, typer.Option(min=100, help="for memory; the first fifth warms up")] = 20_000,
    rows: Annotated[int, typer.Option(min=10_000, help="for lookup")] = 1_000_000,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> int:
    """Measure what the pipeline costs around the model, on this machine."""
    makers: dict[str, Callable[[], DriverCost | PipelineEfficiency | MemorySlope | LookupCost]] = {
        "driver": lambda: driver_cost(workers, chunks, sleep),
        "efficiency": lambda: pipeline_efficiency(load_config(config or ""), workers, threads),
        "memory": lambda: memory_slope(images, images // 5),
        "lookup": lambda: lookup_cost(rows),
    }
    if what not in makers:
        raise ConfigError.one("--what", f"'{what}' is not measured", f"one of {', '.join(makers)}")
    if (what == "efficiency") != (config is not None):
        raise ConfigError.one("CONFIG", "efficiency is that of a run, the rest is not", "name a run file for it alone")
    err.say(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    found = makers[what]()
    facts = dataclasses.asdict(found)
    if isinstance(found, DriverCost):
        facts["ms_per_chunk"] = found.ms_per_chunk
    elif isinstance(found, PipelineEfficiency):
        facts["efficiency"] = found.efficiency
    if as_json:
        out.say(json.dumps(facts))
    else:
        for name, value in facts.items():
            out.say(f"{name:18} {value:.4g}")
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(bench_pipeline))
