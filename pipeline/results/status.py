"""How far a run is, from its folder alone: two listings, the manifest, and glances at parts; nothing is written.

It needs no driver and may be asked from any machine at any moment, also after the run. What a listing shows is
published whole, so that every number is one that was true. Names give chunks, times of modification give rates; the
number of images and the codes of failures stand in the parts, and those of very many parts take too long to be read:
then the last part of each shard is looked at first, then the newest, and what was left out is told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pipeline.results.footers import ScanResult, scan
from pipeline.results.throughput import Straggler, Throughput, stragglers
from pipeline.storage.base import Store
from pipeline.storage.merged import files_of
from pipeline.storage.parts import Footer
from pipeline.storage.run_folder import MANIFEST, PartName, is_temporary, published_parts, read_manifest
from schemas.manifest import RunManifest

PATIENCE = 5.0
"""Seconds that glances at parts may take, unless all are asked for."""

State = Literal["complete", "going", "quiet", "starting"]
Chunks = Mapping[int, Mapping[int, float]]
"""When each chunk of each shard was published: shard ordinal, chunk ordinal, seconds since 1970."""


@dataclass(frozen=True)
class Count:
    """How many; `exact` is False for an estimate, and `number` is None where not even that can be made."""

    number: int | None
    exact: bool


@dataclass(frozen=True)
class Failures:
    """Rows with an error by `stage/code`, in all files but those that were `skipped` for want of time."""

    codes: Counter[str]
    skipped: int


@dataclass(frozen=True)
class Status:
    """A run folder as it was at one moment.

    Attributes:
        manifest: what the run is.
        now: the moment, seconds since 1970.
        last_sign: when a driver or worker last wrote anything.
        chunks: what is published.
        footers: of the parts that were looked at.
        damaged: parts that cannot be read or have gone, and why.
        unseen_ends: shards whose last part was not looked at.
        failures: what failed.
    """

    manifest: RunManifest
    now: float
    last_sign: float
    chunks: Chunks
    footers: Mapping[PartName, Footer]
    damaged: Mapping[str, str]
    unseen_ends: int
    failures: Failures

    @property
    def chunks_done(self) -> int:
        """Parts that are published."""
        return sum(map(len, self.chunks.values()))

    @cached_property
    def finished(self) -> frozenset[int]:
        """Shards of which nothing is missing."""
        return frozenset(shard for shard, chunks in self.chunks.items() if self._is_finished(shard, max(chunks)))

    @property
    def state(self) -> State:
        """`complete`; `quiet` when nothing was written for far longer than usual; else `going`, or `starting`."""
        if len(self.finished) == len(self.manifest.identity.shards):
            return "complete"
        if self.now - self.last_sign > self.throughput.quiet_after:
            return "quiet"
        return "going" if self.chunks else "starting"

    @cached_property
    def throughput(self) -> Throughput:
        """When parts appeared, and with how many images."""
        return Throughput.of([(self.chunks[part.shard][part.chunk], self._images(part)) for part in self._parts])

    @property
    def images_done(self) -> Count:
        """Images of all parts; an estimate where parts were not looked at."""
        return Count(sum(map(self._images, self._parts)), len(self.footers) == len(self._parts))

    @property
    def images_total(self) -> Count:
        """Images of the run: of finished shards, of those counted beforehand, and of others by their bytes."""
        counted = {shard: images for shard, images in enumerate(self.manifest.images) if images is not None}
        done = {shard: self._images_of(shard) for shard in self.finished}
        return self._total(counted | done, exact=self.images_done.exact or done.keys() <= counted.keys())

    @property
    def chunks_total(self) -> Count:
        """Chunks of the run, in the same way."""
        size = self.manifest.identity.chunk_images
        counted = {s: max(1, -(-images // size)) for s, images in enumerate(self.manifest.images) if images is not None}
        return self._total(counted | {shard: len(self.chunks[shard]) for shard in self.finished}, exact=True)

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the time that is left; None where nothing can be said, or nothing goes on."""
        rate, total = self.throughput.recent(self.now).a_second, self.images_total.number
        if self.state != "going" or not rate or total is None:
            return None
        return max(0, total - (self.images_done.number or 0)) / rate

    @cached_property
    def stragglers(self) -> list[Straggler]:
        """Shards and chunks that are far slower than the rest, slowest first."""
        ends = {shard: PartName(shard, max(chunks)) for shard, chunks in self.chunks.items()}
        unfinished = [shard for shard, end in ends.items() if end in self.footers and shard not in self.finished]
        return stragglers(self.chunks, unfinished, self.throughput)

    @cached_property
    def _parts(self) -> list[PartName]:
        return [PartName(shard, chunk) for shard, chunks in self.chunks.items() for chunk in chunks]

    def _images(self, part: PartName) -> int:
        """As many as the part says, or as fit in a chunk."""
        footer = self.footers.get(part)
        return footer.images if footer else self.manifest.identity.chunk_images

    def _images_of(self, shard: int) -> int:
        return sum(self._images(PartName(shard, chunk)) for chunk in self.chunks[shard])

    def _is_finished(self, shard: int, last: int) -> bool:
        footer = self.footers.get(PartName(shard, last))
        return footer is not None and footer.last_chunk and len(self.chunks[shard]) == last + 1

    def _total(self, found: Mapping[int, int], *, exact: bool) -> Count:
        """Add what is found of shards; the others have as many as their bytes let expect."""
        sizes = [shard.size for shard in self.manifest.identity.shards]
        total, measured = sum(found.values()), sum(sizes[shard] for shard in found)
        if len(found) == len(sizes):
            return Count(total, exact)
        return Count(round(total * sum(sizes) / measured), exact=False) if measured else Count(None, exact=False)


def status(store: Store, now: float, patience: float | None = PATIENCE) -> Status:
    """Look at a run folder.

    Args:
        store: where it lies.
        now: seconds since 1970.
        patience: seconds for glances at parts; None looks at all of them.

    Raises:
        ConfigError: it is no run folder.
        DamagedRunError: its manifest is damaged.
        StoreError: it cannot be reached.
    """
    manifest, published = read_manifest(store), published_parts(store)
    listing = store.listed()
    shards = len(manifest.identity.shards)
    times = {part: file.modified for file in listing if (part := PartName.parse(file.name)) and part.shard < shards}
    chunks = _by_shard(times)
    ends = {PartName(shard, max(found)) for shard, found in chunks.items()}
    order = sorted(times, key=lambda part: (part not in ends, -times[part]))
    seen = scan(store, [part.file for part in order], patience)
    footers, foreign = _footers(order, seen, manifest.run_id)
    gone = published.difference(PartName.parse(file.name) for file in listing)
    lost = {part.file: "it has gone, its receipt is there" for part in gone}
    return Status(
        manifest=manifest,
        now=now,
        last_sign=max((file.modified for file in listing if _is_sign(file.name)), default=now),
        chunks=chunks,
        footers=footers,
        damaged=seen.damaged | foreign | lost,
        unseen_ends=max(0, seen.skipped - (len(order) - len(ends))),
        failures=_failures(store, manifest.run_id, seen, patience),
    )


def _by_shard(times: Mapping[PartName, float]) -> Chunks:
    chunks: dict[int, dict[int, float]] = {}
    for part, time in times.items():
        chunks.setdefault(part.shard, {})[part.chunk] = time
    return chunks


def _footers(parts: Iterable[PartName], seen: ScanResult, run_id: str) -> tuple[dict[PartName, Footer], dict[str, str]]:
    """Sort out footers of this run, and parts that have none, or one of another run or chunk."""
    footers: dict[PartName, Footer] = {}
    foreign: dict[str, str] = {}
    for part in parts:
        if part.file not in seen.statistics:
            continue
        footer = seen.statistics[part.file].footer
        if footer is None:
            foreign[part.file] = "has no footer of a part"
        elif wrong := list(footer.contradictions(part, run_id)):
            foreign[part.file] = "; ".join(wrong)
        else:
            footers[part] = footer
    return footers, foreign


def _is_sign(name: str) -> bool:
    """Whether a file is written by a run, not by a reader of it."""
    return name == MANIFEST or is_temporary(name) or PartName.parse(name) is not None


def _failures(store: Store, run_id: str, seen: ScanResult, patience: float | None) -> Failures:
    """Count failures in the parts; when there were too many, in the few files of a merged copy if there is one."""
    if seen.skipped:
        files = files_of(store, run_id)
        merged = scan(store, files.names, patience) if files.merged else seen
        if not merged.skipped and not merged.damaged:
            seen = merged
    codes: Counter[str] = Counter()
    for statistics in seen.statistics.values():
        codes.update(statistics.failures)
    return Failures(codes, seen.skipped)
