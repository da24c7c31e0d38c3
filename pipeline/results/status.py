"""Determines the progress of a run from its folder alone: two listings, the manifest and part footers.

It needs no driver, writes nothing, and works from any machine, during and after the run. Listed files are complete, so
every count was true at the time of the listing. File names give chunks, and modification times give rates. Numbers of
images and failure codes come from the parts. If there are too many parts to scan in time, the last part of each shard
is scanned first, then the newest parts, and the number of skipped parts is reported.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pipeline.results.constant_maps import constant_shares
from pipeline.results.footers import ScanResult, scan
from pipeline.results.throughput import Straggler, Throughput, stragglers
from pipeline.storage.base import Store
from pipeline.storage.growth import ends_shard
from pipeline.storage.merged import files_of
from pipeline.storage.parts import Footer
from pipeline.storage.run_folder import MANIFEST, PartName, is_temporary, published_parts, read_manifest
from schemas.manifest import RunManifest

PATIENCE = 5.0
"""Default time limit, in seconds, for scanning parts."""

State = Literal["complete", "going", "quiet", "starting"]
Chunks = Mapping[int, Mapping[int, float]]
"""Publication time of each chunk: shard ordinal, chunk ordinal, seconds since 1970."""


@dataclass(frozen=True)
class Count:
    """A count; `exact` is False for an estimate, and `number` is None if no estimate is possible."""

    number: int | None
    exact: bool


@dataclass(frozen=True)
class Failures:
    """Number of rows with an error, by `stage/code`; `skipped` files are missing because time ran out."""

    codes: Counter[str]
    skipped: int


@dataclass(frozen=True)
class Status:
    """The state of a run folder at one moment.

    Attributes:
        manifest: manifest of the run.
        now: the moment, in seconds since 1970.
        last_sign: time of the last write by a driver or worker.
        chunks: the published chunks.
        footers: footers of the scanned parts.
        damaged: parts that are missing or cannot be read, with the reason.
        unseen_ends: number of shards whose last part was not scanned.
        failures: failures in the scanned files.
        degenerate: share of constant maps of each method, in the scanned parts.
    """

    manifest: RunManifest
    now: float
    last_sign: float
    chunks: Chunks
    footers: Mapping[PartName, Footer]
    damaged: Mapping[str, str]
    unseen_ends: int
    failures: Failures
    degenerate: Mapping[str, float] = field(default_factory=dict)

    @property
    def chunks_done(self) -> int:
        """Return the number of published parts."""
        return sum(map(len, self.chunks.values()))

    @cached_property
    def finished(self) -> frozenset[int]:
        """Return the shards whose chunks are all published."""
        return frozenset(shard for shard, chunks in self.chunks.items() if self._is_finished(shard, max(chunks)))

    @property
    def state(self) -> State:
        """Return `complete`, `quiet` (nothing written for unusually long), `going`, or `starting` (no part yet)."""
        if len(self.finished) == len(self.manifest.identity.shards):
            return "complete"
        if self.now - self.last_sign > self.throughput.quiet_after:
            return "quiet"
        return "going" if self.chunks else "starting"

    @cached_property
    def throughput(self) -> Throughput:
        """Return the publication times of the parts, with their numbers of images."""
        return Throughput.of([(self.chunks[part.shard][part.chunk], self._images(part)) for part in self._parts])

    @property
    def images_done(self) -> Count:
        """Return the number of images of all parts; an estimate if parts were not scanned."""
        return Count(sum(map(self._images, self._parts)), len(self.footers) == len(self._parts))

    @property
    def images_total(self) -> Count:
        """Return the number of images of the run; shards neither finished nor counted are estimated by their bytes."""
        counted = {shard: images for shard, images in enumerate(self.manifest.images) if images is not None}
        done = {shard: self._images_of(shard) for shard in self.finished}
        return self._total(counted | done, exact=self.images_done.exact or done.keys() <= counted.keys())

    @property
    def chunks_total(self) -> Count:
        """Return the number of chunks of the run, estimated in the same way."""
        size = self.manifest.identity.chunk_images
        counted = {s: max(1, -(-images // size)) for s, images in enumerate(self.manifest.images) if images is not None}
        return self._total(counted | {shard: len(self.chunks[shard]) for shard in self.finished}, exact=True)

    @property
    def seconds_left(self) -> float | None:
        """Return the estimated seconds until the end; None if unknown, or if the run is not going."""
        rate, total = self.throughput.recent(self.now).a_second, self.images_total.number
        if self.state != "going" or not rate or total is None:
            return None
        return max(0, total - (self.images_done.number or 0)) / rate

    @cached_property
    def stragglers(self) -> list[Straggler]:
        """Return shards and chunks that are far slower than the rest, slowest first."""
        ends = {shard: PartName(shard, max(chunks)) for shard, chunks in self.chunks.items()}
        unfinished = [shard for shard, end in ends.items() if end in self.footers and shard not in self.finished]
        return stragglers(self.chunks, unfinished, self.throughput)

    @cached_property
    def _parts(self) -> list[PartName]:
        return [PartName(shard, chunk) for shard, chunks in self.chunks.items() for chunk in chunks]

    def _images(self, part: PartName) -> int:
        """Return the images of a part by its footer, or the images of a full chunk if the part was not scanned."""
        footer = self.footers.get(part)
        return footer.images if footer else self.manifest.identity.chunk_images

    def _images_of(self, shard: int) -> int:
        return sum(self._images(PartName(shard, chunk)) for chunk in self.chunks[shard])

    def _is_finished(self, shard: int, last: int) -> bool:
        footer = self.footers.get(PartName(shard, last))
        return footer is not None and ends_shard(footer, self.manifest) and len(self.chunks[shard]) == last + 1

    def _total(self, known: Mapping[int, int], *, exact: bool) -> Count:
        """Add up the known counts of shards and extrapolate to the others by their bytes."""
        sizes = [shard.size for shard in self.manifest.identity.shards]
        total, measured = sum(known.values()), sum(sizes[shard] for shard in known)
        if len(known) == len(sizes):
            return Count(total, exact)
        return Count(round(total * sum(sizes) / measured), exact=False) if measured else Count(None, exact=False)


def status(store: Store, now: float, patience: float | None = PATIENCE) -> Status:
    """Determine the state of a run folder.

    Args:
        store: store of the run.
        now: current time, in seconds since 1970.
        patience: time limit for scanning parts, in seconds; None scans all parts.

    Raises:
        ConfigError: it is not a run folder.
        DamagedRunError: its manifest is damaged.
        StoreError: the store cannot be reached.
    """
    manifest, published = read_manifest(store), published_parts(store)
    listing = store.listed()
    shards = len(manifest.identity.shards)
    times = {part: file.modified for file in listing if (part := PartName.parse(file.name)) and part.shard < shards}
    chunks = _by_shard(times)
    ends = {PartName(shard, max(found)) for shard, found in chunks.items()}
    order = sorted(times, key=lambda part: (part not in ends, -times[part]))
    scanned = scan(store, [part.file for part in order], patience)
    footers, foreign = _footers(order, scanned, manifest)
    gone = published.difference(PartName.parse(file.name) for file in listing)
    lost = {part.file: "it is missing, but its receipt exists" for part in gone}
    return Status(
        manifest=manifest,
        now=now,
        last_sign=max((file.modified for file in listing if _is_sign(file.name)), default=now),
        chunks=chunks,
        footers=footers,
        damaged=scanned.damaged | foreign | lost,
        unseen_ends=max(0, scanned.skipped - (len(order) - len(ends))),
        failures=_failures(store, manifest.run_id, scanned, patience),
        degenerate=constant_shares(scanned.statistics.values(), manifest.identity.methods),
    )


def _by_shard(times: Mapping[PartName, float]) -> Chunks:
    chunks: dict[int, dict[int, float]] = {}
    for part, time in times.items():
        chunks.setdefault(part.shard, {})[part.chunk] = time
    return chunks


def _footers(
    parts: Iterable[PartName], scanned: ScanResult, manifest: RunManifest
) -> tuple[dict[PartName, Footer], dict[str, str]]:
    """Return the footers of this run's parts, and the problems of parts without a footer or of another run or chunk."""
    footers: dict[PartName, Footer] = {}
    foreign: dict[str, str] = {}
    for part in parts:
        if part.file not in scanned.statistics:
            continue
        footer = scanned.statistics[part.file].footer
        if footer is None:
            foreign[part.file] = "has no camatlas footer"
        elif wrong := list(footer.contradictions(part, manifest.run_id, manifest.earlier_ids)):
            foreign[part.file] = "; ".join(wrong)
        else:
            footers[part] = footer
    return footers, foreign


def _is_sign(name: str) -> bool:
    """Return whether a file was written by the run itself."""
    return name == MANIFEST or is_temporary(name) or PartName.parse(name) is not None


def _failures(store: Store, run_id: str, scanned: ScanResult, patience: float | None) -> Failures:
    """Count failures in the parts, or, if parts were skipped, in the few files of a merged copy if there is one."""
    if scanned.skipped:
        files = files_of(store, run_id)
        merged = scan(store, files.names, patience) if files.merged else scanned
        if not merged.skipped and not merged.damaged:
            scanned = merged
    codes: Counter[str] = Counter()
    for statistics in scanned.statistics.values():
        codes.update(statistics.failures)
    return Failures(codes, scanned.skipped)
