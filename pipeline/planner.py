"""Forwards, backwards, bytes and hours of a run before it starts; nothing is written.

A few images of the run are read, decoded and explained by the run's own steps (`pipeline.rehearsal`). Passes are
counted there, and seconds measured; both are scaled to all images. See `Plan` for what is then said.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import torch

from pipeline.cams.base import Cost
from pipeline.decode import DecodedChunk
from pipeline.errors import ConfigError
from pipeline.explainer import Explainer
from pipeline.metrics.cost import metrics_cost
from pipeline.parts import Footer, encode_part
from pipeline.placement import CPU_THREADS, Machines
from pipeline.preflight import PreparedRun, net_shape
from pipeline.rehearsal import SHARED, SWEEP, Account, PassShape, Rehearsal, Rehearser
from pipeline.run_folder import PartName, Receipt
from pipeline.sampling import ImageSample, take_sample
from pipeline.sources import Shard, count_images
from pipeline.targets import TargetRules

ENGINE_SECONDS = 12.0
"""To start Ray and its workers and to end them, beside making the run ready: measured on two cores; 6 to 20 s."""

_SETTLED = 16
"""From so many images on, time grows with their number: passes are filled up to 16."""

_ROUNDS = 3


@dataclass(frozen=True)
class Line:
    """One line of a plan, per image of the run.

    Attributes:
        kind, name: a method or metric, or "shared": the clean pass, and the rows.
        forwards, head_passes, backwards: counted on the sample; what several metrics ask stands with the first one.
        forwards_bound: the most that the forwards can be, by the cost that the method or metric states.
        seconds: of one worker.
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
    """What the figures of a plan rest on.

    Attributes:
        images, shards: images that were read, and from how many shards.
        explained: images that were explained at a time.
        forward_seconds: of one masked forward in the largest pass; None where none was asked for.
        probe_seconds: what the probe took.
    """

    images: int
    shards: int
    explained: int
    forward_seconds: float | None
    probe_seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        images, shards, chunks, encoded_bytes: what is read; a chunk becomes a part.
        rows: of the table; those of failed images included.
        run_bytes: of the finished run folder.
        lines: passes and seconds per image.
        reading_seconds: CPU seconds per image to read, decode and commit; hidden behind the model where CPUs allow it.
        start_seconds: before the first and after the last image.
        machines: where it runs.
        sampled: what the figures rest on.
    """

    images: int
    shards: int
    chunks: int
    encoded_bytes: int
    rows: int
    run_bytes: int
    lines: tuple[Line, ...]
    reading_seconds: float
    start_seconds: float
    machines: Machines
    sampled: Sampled

    @property
    def image_seconds(self) -> float:
        """Seconds of one worker for an image."""
        return sum(line.seconds for line in self.lines)

    @property
    def forwards(self) -> int:
        """Forward passes of the whole run, in images."""
        return round(self.images * sum(line.forwards for line in self.lines))

    @property
    def wall_seconds(self) -> float:
        """From the command to its end."""
        work = self.machines.seconds(self.images * self.image_seconds, self.images * self.reading_seconds, self.shards)
        return self.start_seconds + work

    @property
    def worker_hours(self) -> float:
        """Hours that all workers together are held; on GPUs, GPU-hours."""
        return self.wall_seconds * self.machines.workers / 3600

    def cost(self, price: float) -> float:
        """What the run costs at a price per worker-hour."""
        return price * self.worker_hours

    def to_json(self, price: float | None) -> dict[str, Any]:
        """The plan for programs."""
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
    """Plan a run by a probe of this machine.

    Args:
        run: the run; nothing of it is written.
        ready_seconds: what it took to make the run ready, which the run itself has to do again.
        probe_seconds: about the longest time for the probe; one image is explained however long it takes.

    Raises:
        ConfigError: no image of the sample can be read.
    """
    began = time.perf_counter()
    compute = run.config.compute
    gpus = torch.cuda.device_count()
    machines = Machines.like_this_one(compute.device, compute.workers, gpus, several=compute.address is not None)
    spec = run.explainer_spec(machines.device)
    images = [count_images(shard) for shard in run.shards]
    full = max(1, min(spec.batch, run.config.data.chunk_images, max(images, default=0)))
    sample = take_sample(run.shards, run.reading, run.loaded.preprocess, run.limits, full)
    if not sample.chunk.samples:
        raise ConfigError.one("data.shards", f"none of {sample.images} sampled images can be read", "look at the data")
    if machines.device == "cpu":
        torch.set_num_threads(CPU_THREADS)
    rehearser = Rehearser(Explainer(run.loaded.model, spec))
    measured = _measured(rehearser, sample.chunk, began + probe_seconds)
    part = PartSize.of(measured.last.rows)
    explained = len(sample.chunk.samples) / sample.images
    chunks = [_chunk_sizes(count, run.config.data.chunk_images) for count in images]
    rows_an_image = explained * measured.last.rows.num_rows / measured.last.images + (1 - explained)
    every_chunk = [size for sizes in chunks for size in sizes]
    return Plan(
        images=sum(images),
        shards=len(run.shards),
        chunks=len(every_chunk),
        encoded_bytes=sum(_encoded(shard, count) for shard, count in zip(run.shards, images, strict=True)),
        rows=round(sum(images) * rows_an_image),
        run_bytes=len(run.manifest.to_json()) + round(sum(part.bytes(size * rows_an_image) for size in every_chunk)),
        lines=tuple(_scaled(line, explained) for line in _lines(run, measured)),
        reading_seconds=sample.seconds / sample.images + part.seconds_a_row * rows_an_image,
        start_seconds=ready_seconds + ENGINE_SECONDS,
        machines=machines,
        sampled=_sampled(sample, measured, time.perf_counter() - began),
    )


@dataclass(frozen=True)
class Measured:
    """Rehearsals of one image and of several, and the model's seconds for a pass of each shape."""

    first: Rehearsal
    last: Rehearsal
    pass_seconds: dict[PassShape, float]
    full: int

    def seconds(self, name: str) -> float:
        """Seconds per image of an account in a full batch; of a few images the fixed part is told from the rest."""
        some, images = self._seconds(self.last, name), self.last.images
        settled = min(_SETTLED, self.full)
        if images >= settled or images == self.first.images:
            return some / images
        each = max(0.0, some - self._seconds(self.first, name)) / (images - self.first.images)
        return (some + each * (settled - images)) / settled

    def _seconds(self, rehearsal: Rehearsal, name: str) -> float:
        account = rehearsal.accounts.get(name, Account())
        return account.seconds + account.model_seconds(self.pass_seconds)


@dataclass(frozen=True)
class PartSize:
    """Size of a part: a fixed size (schema, footer, receipt), and bytes for each row."""

    fixed_bytes: float
    row_bytes: float
    seconds_a_row: float

    @classmethod
    def of(cls, rows: pa.Table) -> "PartSize":
        """Write rows as a part, all of them and half of them, in memory."""
        began = time.perf_counter()
        all_bytes = cls._written(rows)
        seconds = time.perf_counter() - began
        few = rows.num_rows // 2
        row_bytes = (all_bytes - cls._written(rows.slice(0, few))) / (rows.num_rows - few)
        return cls(all_bytes - row_bytes * rows.num_rows, row_bytes, seconds / rows.num_rows)

    def bytes(self, rows: float) -> float:
        """Size of a part of so many rows, with its receipt."""
        return self.fixed_bytes + self.row_bytes * rows

    @staticmethod
    def _written(rows: pa.Table) -> int:
        name = PartName(0, 0)
        data = encode_part(rows, Footer("0" * 16, 0, 0, last_chunk=True, images=rows.num_rows))
        return len(data) + len(Receipt.of(name, data, rows.num_rows).to_json())


def _measured(rehearser: Rehearser, chunk: DecodedChunk, until: float) -> Measured:
    """Rehearse one image, then as many as time allows, then time the model."""
    full = len(chunk.samples)
    rehearser.rehearse(chunk, 1)  # whatever is done once only
    first = rehearser.rehearse(chunk, 1)
    last = first
    if full > 1:
        images = _affordable(rehearser, chunk, first, until)
        rounds = [rehearser.rehearse(chunk, images)]
        while len(rounds) < _ROUNDS and time.perf_counter() + 2 * _total(rounds[-1]) < until:
            rounds.append(rehearser.rehearse(chunk, images))
        last = sorted(rounds, key=_total)[len(rounds) // 2]
    return Measured(first, last, rehearser.pass_seconds(), full)


def _affordable(rehearser: Rehearser, chunk: DecodedChunk, first: Rehearsal, until: float) -> int:
    """Choose how many images to rehearse: a full batch, unless that would take too long.

    Passes of few images are filled up, so several may take no longer than one: two are tried where one is slow.
    """
    full, left = len(chunk.samples), until - time.perf_counter()
    if full * _total(first) <= left:
        return full
    each = max(1e-6, _total(rehearser.rehearse(chunk, 2)) - _total(first))
    left = until - time.perf_counter()
    return max(2, min(full, int(1 + max(0.0, left - _total(first)) / each)))


def _total(rehearsal: Rehearsal) -> float:
    return sum(account.seconds for account in rehearsal.accounts.values())


def _lines(run: PreparedRun, measured: Measured) -> list[Line]:
    """Make the lines of all accounts; the sweep that all metrics share is cut by what each of them asked."""
    shape, most = net_shape(run.loaded), TargetRules.of(run.config.explain.targets).most
    bounds = {f"method {label}": method.cost(shape) for label, method in run.methods.items()}
    bounds |= {f"metric {label}": metrics_cost([m], run.methods, shape) for label, m in run.metrics.items()}
    asked = measured.last.asked
    shares = {name: asked.get(name, 0) / max(1, sum(asked.values())) for name in bounds}
    shares[SHARED] = 0.0 if any(shares.values()) else 1.0
    bounds[SHARED] = Cost(forwards=1)
    return [
        _line(name, measured, shares[name], bounds[name].forwards * (most if name else 1))
        for name in (SHARED, *(name for name in bounds if name))
    ]


def _line(name: str, measured: Measured, share: float, bound: int) -> Line:
    """Make the line of one account with its share of the sweep."""
    own = measured.last.accounts.get(name, Account())
    sweep = measured.last.accounts.get(SWEEP, Account())
    kind, _, label = name.partition(" ")
    return Line(
        kind or "shared",
        label or "clean pass, rows",
        (own.forwards + share * sweep.forwards) / measured.last.images,
        (own.head_passes + share * sweep.head_passes) / measured.last.images,
        (own.backwards + share * sweep.backwards) / measured.last.images,
        bound,
        measured.seconds(name) + share * measured.seconds(SWEEP),
    )


def _scaled(line: Line, share: float) -> Line:
    """Spread a line over all images, those that cannot be read included."""
    passes = {name: share * getattr(line, name) for name in ("forwards", "head_passes", "backwards", "seconds")}
    return replace(line, **passes)


def _sampled(sample: ImageSample, measured: Measured, seconds: float) -> Sampled:
    largest = max(measured.pass_seconds, default=None)
    forward = None if largest is None else measured.pass_seconds[largest] / largest[0]
    return Sampled(sample.images, sample.shards, measured.last.images, forward, seconds)


def _chunk_sizes(images: int, chunk_images: int) -> list[int]:
    """Images of the chunks of a shard; an empty shard is one chunk too."""
    whole, rest = divmod(images, chunk_images)
    return [chunk_images] * whole + [rest] * bool(rest) or [0]


def _encoded(shard: Shard, images: int) -> int:
    """Bytes that are read of a shard, as far as the run takes it."""
    if shard.take is None or not shard.images:
        return shard.size
    return round(shard.size * min(1.0, images / shard.images))
