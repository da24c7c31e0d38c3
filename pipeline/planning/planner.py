"""Estimates passes, bytes and hours of a run before it starts; nothing is written.

A few images of the run are read, decoded and explained as in the run (`pipeline.planning.dry_run`), while passes are
counted and seconds measured. Both are scaled to all images and reported as a `Plan`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from pipeline.cams.base import Cost
from pipeline.data.sources import Shard, count_images, image_bytes
from pipeline.errors import ConfigError
from pipeline.explain.explainer import Explainer
from pipeline.metrics.cost import metrics_cost
from pipeline.model.memory import keep_freed_memory
from pipeline.planning.dry_run import SHARED, SWEEP, Account, DryRunner
from pipeline.planning.sampling import ImageSample, take_sample
from pipeline.planning.timing import ImageTiming, time_images
from pipeline.run.placement import CPU_THREADS, Machines
from pipeline.run.preflight import PreparedRun, net_shape
from pipeline.settings.targets import TargetRules
from pipeline.storage.parts import Footer, encode_part
from pipeline.storage.run_folder import PartName, Receipt

ENGINE_SECONDS = 12.0
"""Time to start and stop Ray and its workers, not including preparing the run; measured in short runs on 2 cores."""


@dataclass(frozen=True)
class Line:
    """One line of a plan, per image of the run.

    Attributes:
        kind, name: of a method or metric; the kind "shared" is the clean pass and making rows.
        forwards, head_passes, backwards: counted on the sample; requests of several metrics count for the first one.
        forwards_bound: upper bound of the forwards, from the cost that the method or metric declares.
        seconds: time of one worker.
    """

    kind: str
    name: str
    forwards: float
    head_passes: float
    backwards: float
    forwards_bound: int
    seconds: float


@dataclass(frozen=True)
class Sampled:
    """The sample behind the figures of a plan.

    Attributes:
        images, shards: number of images that were read, and of shards they came from.
        explained: number of images that were explained together.
        forward_seconds: time per image of the largest masked pass; None if there were no masked passes.
        probe_seconds: time of the whole measurement.
    """

    images: int
    shards: int
    explained: int
    forward_seconds: float | None
    probe_seconds: float


@dataclass(frozen=True)
class Plan:
    """The estimated cost of a run.

    Attributes:
        images, shards, chunks, encoded_bytes: input of the run; each chunk becomes a part.
        rows: rows of all parts, including those of failed images.
        maps: the rows that have a map.
        run_bytes: size of the finished run folder.
        lines: passes and seconds per image.
        reading_seconds: CPU seconds per image to read, decode and commit; in parallel with the model if CPUs allow it.
        start_seconds: time before the first and after the last image.
        machines: hardware of the run.
        sampled: the sample behind the figures.
        warnings: what the sample gives reason to change before the run.
        estimated: whether `images` was estimated from the sizes of shards, because counting the images of a tar in an
            object store would mean fetching it.
    """

    images: int
    shards: int
    chunks: int
    encoded_bytes: int
    rows: int
    maps: int
    run_bytes: int
    lines: tuple[Line, ...]
    reading_seconds: float
    start_seconds: float
    machines: Machines
    sampled: Sampled
    estimated: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def image_seconds(self) -> float:
        """Return the seconds that one worker needs per image."""
        return sum(line.seconds for line in self.lines)

    @property
    def forwards(self) -> int:
        """Return the forward passes of the whole run, in images."""
        return round(self.images * sum(line.forwards for line in self.lines))

    @property
    def wall_seconds(self) -> float:
        """Return the seconds from the start of the command to its end."""
        work = self.machines.seconds(self.images * self.image_seconds, self.images * self.reading_seconds, self.shards)
        return self.start_seconds + work

    @property
    def worker_hours(self) -> float:
        """Return the total hours of all workers; on GPUs these are GPU-hours."""
        return self.wall_seconds * self.machines.workers / 3600

    def cost(self, price: float) -> float:
        """Return the cost of the run at a price per worker-hour."""
        return price * self.worker_hours

    def to_json(self, price: float | None) -> dict[str, Any]:
        """Convert the plan to JSON values; `price` is per worker-hour, None for no cost."""
        lines = [vars(line) | {"share": line.seconds / max(self.image_seconds, 1e-12)} for line in self.lines]
        derived = ("image_seconds", "forwards", "wall_seconds", "worker_hours")
        return {
            **vars(self),
            "lines": lines,
            "machines": vars(self.machines),
            "sampled": vars(self.sampled),
            **{name: getattr(self, name) for name in derived},
            "cost": None if price is None else self.cost(price),
        }


def plan(run: PreparedRun, ready_seconds: float = 0.0, probe_seconds: float = 60.0) -> Plan:
    """Estimate the cost of a run by explaining a few of its images on this machine.

    Args:
        run: the prepared run; nothing is written.
        ready_seconds: time that preparing the run took, which the run itself will need again.
        probe_seconds: approximate time limit; at least one image is explained, even if that takes longer.

    Raises:
        ConfigError: no image of the sample can be read.
    """
    began = time.perf_counter()
    compute, chunk_images = run.config.compute, run.config.data.chunk_images
    machines = Machines.like_this_one(
        compute.device, compute.workers, torch.cuda.device_count(), several=compute.address is not None,
        gpus_per_worker=compute.gpus_per_worker,
    )  # fmt: skip
    if machines.device == "cpu":
        torch.set_num_threads(CPU_THREADS)
        keep_freed_memory()
    explainer = Explainer(run.loaded.model, run.explainer_spec(machines.device, machines.workers))
    counted = [(shard, count_images(shard, run.reading)) for shard in run.shards]
    counts = _image_counts(counted)
    sample = _take_sample(run, min(explainer.probe.batcher.size, chunk_images, max(counts)))
    timing = time_images(DryRunner(explainer), sample.chunk, began + probe_seconds)
    part = PartSize.of(timing.last.rows)
    explained = len(sample.chunk.samples) / sample.images
    rows_each = explained * timing.last.rows.num_rows / timing.last.images + (1 - explained)
    chunks = [size for count in counts for size in _chunk_sizes(count, chunk_images)]
    return Plan(
        images=sum(counts),
        shards=len(run.shards),
        chunks=len(chunks),
        encoded_bytes=round(
            sum(shard.bytes for shard in run.shards if shard.take is None)
            + sum(shard.take or 0 for shard in run.shards) * sample.chunk.encoded_bytes / sample.images
        ),
        rows=round(sum(counts) * rows_each),
        maps=round(sum(counts) * explained * _maps_of(timing.last.rows) / timing.last.images),
        run_bytes=round(len(run.manifest.to_json()) + sum(part.bytes(size * rows_each) for size in chunks)),
        lines=tuple(_scaled(line, explained) for line in _lines(run, timing)),
        reading_seconds=sample.seconds / sample.images + part.seconds_a_row * rows_each,
        start_seconds=ready_seconds + ENGINE_SECONDS,
        machines=machines,
        sampled=_sampled(sample, timing, time.perf_counter() - began),
        estimated=any(count is None for _, count in counted),
        warnings=tuple(filter(None, [sample.chunk.depth.warning()])),
    )


def _maps_of(rows: pa.Table) -> int:
    """Count the rows that have a map."""
    return int(rows.num_rows - rows["map"].null_count)


def _take_sample(run: PreparedRun, images: int) -> ImageSample:
    """Read and decode a few images.

    Raises:
        ConfigError: none of them can be read.
    """
    sample = take_sample(run.shards, run.reading, run.loaded.preprocess, run.limits, max(1, images))
    if not sample.chunk.samples:
        first = sample.chunk.failures[0]
        what = f"none of the {sample.images} sampled images can be read; '{first.key}': {first.code}, {first.detail}"
        hint = "data.formats names further formats, and data.decoder a function that reads them"
        raise ConfigError.one("data.shards", what, hint if first.code == "format" else "")
    return sample


def _image_counts(counted: Sequence[tuple[Shard, int | None]]) -> list[int]:
    """Return the number of images of each shard, estimated from a few shards' bytes per image if not counted."""
    unknown = [shard for shard, count in counted if count is None]
    each = image_bytes(unknown[:: max(1, len(unknown) // 3)])
    return [round(shard.size / each) if count is None else count for shard, count in counted]


@dataclass(frozen=True)
class PartSize:
    """Size of a part: a fixed size (schema, footer, receipt) plus bytes per row; and the time to encode a row."""

    fixed_bytes: float
    row_bytes: float
    seconds_a_row: float

    @classmethod
    def of(cls, rows: pa.Table) -> "PartSize":
        """Measure by encoding all rows, and half of them, as parts in memory."""
        few = rows.num_rows // 2
        few_bytes = cls._encoded_size(rows.slice(0, few))  # first and untimed, as a warm-up
        began = time.perf_counter()
        all_bytes = cls._encoded_size(rows)
        seconds = time.perf_counter() - began
        row_bytes = (all_bytes - few_bytes) / (rows.num_rows - few)
        return cls(all_bytes - row_bytes * rows.num_rows, row_bytes, seconds / rows.num_rows)

    def bytes(self, rows: float) -> float:
        """Return the size of a part with this many rows, with its receipt."""
        return self.fixed_bytes + self.row_bytes * rows

    @staticmethod
    def _encoded_size(rows: pa.Table) -> int:
        name = PartName(0, 0)
        data = encode_part(rows, Footer("0" * 16, 0, 0, last_chunk=True, images=rows.num_rows))
        return len(data) + len(Receipt.of(name, data, rows.num_rows).to_json())


def _lines(run: PreparedRun, timing: ImageTiming) -> list[Line]:
    """Make the lines of all accounts, and divide the shared scoring among metrics by the images they requested."""
    shape, max_targets = net_shape(run.loaded), TargetRules.of(run.config.explain.targets).most
    bounds = {f"method {label}": method.cost(shape) for label, method in run.methods.items()}
    bounds |= {f"metric {label}": metrics_cost([m], run.methods, shape) for label, m in run.metrics.items()}
    requested = timing.last.requested
    shares = {name: requested.get(name, 0) / max(1, sum(requested.values())) for name in bounds}
    shares[SHARED] = 0.0 if any(shares.values()) else 1.0
    exact = run.config.compute.precision == "bf16" and any(m.needs.in_float32 for m in run.methods.values())
    bounds[SHARED] = Cost(forwards=2 if exact else 1)  # in bf16, the pass with gradients is repeated in fp32
    return [
        _line(name, timing, shares[name], bounds[name].forwards * (max_targets if name else 1))
        for name in (SHARED, *(name for name in bounds if name))
    ]


def _line(name: str, timing: ImageTiming, share: float, bound: int) -> Line:
    """Make the line of one account, with its share of the shared scoring."""
    own = timing.last.accounts.get(name, Account())
    sweep = timing.last.accounts.get(SWEEP, Account())
    kind, _, label = name.partition(" ")
    return Line(
        kind or "shared",
        label or "clean pass, rows",
        (own.forwards + share * sweep.forwards) / timing.last.images,
        (own.head_passes + share * sweep.head_passes) / timing.last.images,
        (own.backwards + share * sweep.backwards) / timing.last.images,
        bound,
        timing.seconds(name) + share * timing.seconds(SWEEP),
    )


def _scaled(line: Line, share: float) -> Line:
    """Scale a line from readable images to all images; `share` is the share of readable ones."""
    passes = {name: share * getattr(line, name) for name in ("forwards", "head_passes", "backwards", "seconds")}
    return replace(line, **passes)


def _sampled(sample: ImageSample, timing: ImageTiming, seconds: float) -> Sampled:
    largest = max(timing.pass_seconds, default=None)
    forward = None if largest is None else timing.pass_seconds[largest] / largest[0]
    return Sampled(sample.images, sample.shards, timing.last.images, forward, seconds)


def _chunk_sizes(images: int, chunk_images: int) -> list[int]:
    """Return the images of each chunk of a shard; an empty shard has one empty chunk."""
    whole, rest = divmod(images, chunk_images)
    return [chunk_images] * whole + [rest] * bool(rest) or [0]
