"""Reads single images of a run by their places, for a viewer: one ranged read and one decoding for each.

Rows say where an image lies (`image_offset` and the columns after it). For rows of earlier versions, the headers of a
tar, or the keys of a table, are read once and kept in memory; nothing is written. Compressed tars are searched each
time. A shard is compared with that of the run before its first image, and again if its file changes.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from threading import Lock, RLock
from types import TracebackType
from typing import Self

from pipeline.data.decode import limits_for
from pipeline.data.limits import UnreadableImageError
from pipeline.data.sandbox_pool import SandboxPool
from pipeline.data.sources import Sample, Shard
from pipeline.data.sources.gzip_stream import is_gzip_name
from pipeline.data.sources.objects import RangeReader, is_url
from pipeline.data.sources.one_image import MissingImageError, extents_of, is_located, read_image, search_image
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.data.sources.shards import KNOWN_KINDS, NOWHERE, TABLE_KINDS, Extent
from pipeline.errors import CamatlasError, ConfigError, first_line
from pipeline.results.places import Place
from pipeline.results.query import Run
from pipeline.results.run_images import RunImages
from pipeline.results.source_images import Original, originals

MOST_INDEXED = 500_000
"""Most places of images that are kept in memory for runs whose rows do not say them."""
_RETRY_SECONDS = 30.0
"""How long a shard that could not be read is not tried again, if its file tells nothing."""
_MOST_NOTES = 1000
_ADVICE = ". Finished chunks are kept"
"""Begins what errors of a store advise to who makes a run."""
_MOST_ROWS = 4
"""Most rows of a table that are read one by one; for more, it is read from its start."""


@dataclass
class _Source:
    """One shard: found and compared with that of the run, or the reason why it cannot be read."""

    shard: Shard | None = None
    note: str = ""
    signature: tuple[int, ...] | None = None
    checked: float = 0.0
    lock: Lock = field(default_factory=Lock)

    def find(self, images: RunImages, name: str) -> None:
        """Find the shard and compare it; the caller holds the lock."""
        self.shard, self.note = None, ""
        try:
            self.shard = images.shard(name)
        except (CamatlasError, OSError) as error:
            self.note = _cannot(name, error)
        self.checked = time.monotonic()


class ImageReader:
    """Reads images of an open run as the model saw them; a context manager that threads may share.

    Args:
        run: an open run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock, self._preparing = Lock(), RLock()
        self._images: RunImages | None = None
        self._note: str | None = None
        self._sources: dict[str, _Source] = {}
        self._indices: OrderedDict[str, dict[str, Extent]] = OrderedDict()
        self._notes: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._scanned: list[str] = []
        self._ranges = RangeReader()
        self._exit = ExitStack()
        self._tables = self._exit.enter_context(parquet_sandbox())
        self._sandboxes: SandboxPool | None = None

    @property
    def note(self) -> str:
        """Say why no image can be shown, as far as is known from those asked for; nothing is read for it.

        Empty if images can be shown, except those of some shards: `note_for` says it of each.
        """
        with self._lock:
            notes = [source.note for source in self._sources.values() if source.checked]
        return self._note or (notes[0] if notes and all(notes) else "")

    @property
    def remark(self) -> str:
        """Say which shards had to be searched, because rows do not say where their images lie; empty if none."""
        if not self._scanned:
            return ""
        names = ", ".join(self._scanned[:3]) + (f" and {len(self._scanned) - 3} more" if len(self._scanned) > 3 else "")
        return (
            f"The rows do not say where the images of {names} lie (an earlier version of camatlas, or a compressed "
            "tar), so these shards were searched, which takes longer. `camatlas explain` in a new folder records it."
        )

    def note_for(self, shard: str, image_key: str | None = None) -> str:
        """Say why images of a shard cannot be shown, or why the one that was last asked for by this key cannot."""
        images = self._prepared()
        if images is None:
            return self._note or ""
        source = self._source(images, shard)
        return source.note or (self._notes.get((shard, image_key), "") if image_key is not None else "")

    def original(self, shard: str, image_key: str, extent: Extent = NOWHERE) -> Original | None:
        """Read one image; None if it cannot be shown, and `note_for` says why.

        Args:
            shard, image_key: the image.
            extent: where it lies, if the caller has its row (`Extent.of`); else it is looked up.
        """
        images = self._prepared()
        if images is None:
            return None
        source = self._source(images, shard)
        if source.shard is None:
            return None
        try:
            sample = self._sample(images, source.shard, image_key, extent)
            return self._decoded(images, sample)
        except (MissingImageError, UnreadableImageError, CamatlasError, OSError) as error:
            self._remember(images, source, (shard, image_key), error)
            return None

    def originals(self, wanted: Iterable[Place]) -> Iterator[tuple[Place, Original]]:
        """Yield several images by (shard, image key), as `originals` does; images that cannot be shown are left out.

        Each is read by its place. A shard of which many images are wanted, or whose rows do not say where they lie, is
        read from its start instead.
        """
        extents = self._run.extents(by_place := set(wanted))
        listed = any(entry.kind in KNOWN_KINDS for entry in self._run.manifest.identity.shards)
        images = self._prepared() if extents or listed else None
        if images is None:
            yield from originals(self._run.manifest, by_place)
            return
        streamed: list[Place] = []
        for name, places in groupby(sorted(by_place), key=lambda place: place[0]):
            several = sorted(places, key=lambda place: (_order(extents.get(place, NOWHERE)), place))
            shard = self._source(images, name).shard
            if shard is None or not _is_cheap(shard, [extents.get(place, NOWHERE) for place in several]):
                streamed += several
                continue
            for place in several:
                if (found := self.original(*place, extents.get(place, NOWHERE))) is not None:
                    yield place, found
        yield from originals(self._run.manifest, streamed)

    def close(self) -> None:
        """End the subprocesses."""
        if self._sandboxes is not None:
            self._sandboxes.close()
        self._exit.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepared(self) -> RunImages | None:
        """Return how images are read, found out once; None if they cannot be."""
        with self._preparing:
            if self._note is None:
                try:
                    self._images = RunImages.of(self._run.manifest)
                    self._sandboxes = SandboxPool(self._images.limits.decoder)
                    self._note = ""
                except (CamatlasError, OSError, KeyError, ValueError) as error:
                    self._note = f"The images of the run cannot be read again: {_reason(error)}"
        return self._images

    def _source(self, images: RunImages, name: str) -> _Source:
        """Return a shard, compared with that of the run; again if its file changed, or some time after a failure."""
        if name not in images.entries:
            return _Source(note=f"The run has no shard '{name}'.")
        with self._lock:
            source = self._sources.setdefault(name, _Source())
        with source.lock:
            signature = _signature(images, name)
            failed = source.note and signature is None and time.monotonic() - source.checked > _RETRY_SECONDS
            if not source.checked or signature != source.signature or failed:
                source.find(images, name)
                source.signature = signature
                with self._lock:
                    self._indices.pop(name, None)
        return source

    def _sample(self, images: RunImages, shard: Shard, key: str, extent: Extent) -> Sample:
        if not is_located(extent, shard) and shard.name not in self._indices:
            extent = self._run.extents([(shard.name, key)]).get((shard.name, key), NOWHERE)
        if not is_located(extent, shard):
            if is_gzip_name(shard.location):
                self._scans(shard.name)
                return search_image(shard, images.reading, key, self._tables)
            extent = self._index(images, shard).get(key, NOWHERE)
            if not is_located(extent, shard):
                raise MissingImageError(f"there is no such image in '{shard.name}'")
        return read_image(shard, images.reading, key, extent, self._ranges, self._tables)

    def _index(self, images: RunImages, shard: Shard) -> dict[str, Extent]:
        """Return the places of all images of a shard, found once."""
        with self._sources[shard.name].lock:
            found = self._indices.get(shard.name)
            if found is None:
                self._scans(shard.name)
                found = extents_of(shard, images.reading, self._tables)
        with self._lock:
            self._indices[shard.name] = found
            self._indices.move_to_end(shard.name)
            while len(self._indices) > 1 and sum(map(len, self._indices.values())) > MOST_INDEXED:
                self._indices.popitem(last=False)
        return found

    def _scans(self, name: str) -> None:
        with self._lock:
            if name not in self._scanned:
                self._scanned.append(name)

    def _decoded(self, images: RunImages, sample: Sample) -> Original:
        assert self._sandboxes is not None
        with self._sandboxes.taken() as sandbox:
            limits = limits_for(sample, images.limits)
            framed = sandbox.frame(sample.image, sample.boxes_xyxy, images.preprocess, limits)
        return Original(framed.pixels_HWC, framed.boxes_xyxy)

    def _remember(self, images: RunImages, source: _Source, place: Place, error: Exception) -> None:
        """Keep why an image cannot be shown; if its shard is gone, replaced or out of reach, that of the shard."""
        shard, key = place
        of_image = source.shard is not None and source.shard.kind in KNOWN_KINDS  # each has a file of its own
        if isinstance(error, (CamatlasError, OSError)) and not of_image:
            with source.lock:
                source.find(images, shard)
                source.note = source.note or _cannot(shard, error)
                source.shard = None
            return
        with self._lock:
            self._notes[place] = f"'{key}' cannot be shown: {_reason(error)}"
            while len(self._notes) > _MOST_NOTES:
                self._notes.popitem(last=False)


def originals_of(run: Run, wanted: Iterable[Place]) -> Iterator[tuple[Place, Original]]:
    """Yield images of an open run by (shard, image key), as `ImageReader.originals` does."""
    with ImageReader(run) as reader:
        yield from reader.originals(wanted)


def _order(extent: Extent) -> int:
    """Return what sorts the images of a shard in the order in which they lie there."""
    return next((place for place in (extent.sample_offset, extent.image_row) if place is not None), 0)


def _is_cheap(shard: Shard, extents: Sequence[Extent]) -> bool:
    """Return whether reading some images by their places costs less than reading the shard up to the last of them."""
    if not all(is_located(extent, shard) for extent in extents):
        return False
    if shard.kind in TABLE_KINDS:  # a row costs half of its row group, and most tables have a few of them
        return len(extents) <= _MOST_ROWS
    return shard.kind in KNOWN_KINDS or sum(extent.sample_bytes or 0 for extent in extents) <= shard.size // 4


def _cannot(shard: str, error: Exception) -> str:
    return f"The images of '{shard}' cannot be shown: {_reason(error)}"


def _reason(error: Exception) -> str:
    """Say what happened in one line, without the name of an exception of ours."""
    if isinstance(error, ConfigError):
        return "; ".join(f"{one.what} ({one.hint})" if one.hint else one.what for one in error.mistakes)
    if isinstance(error, (MissingImageError, UnreadableImageError, CamatlasError)):
        return " ".join(str(error).split()).partition(_ADVICE)[0]
    return first_line(error)


def _signature(images: RunImages, name: str) -> tuple[int, ...] | None:
    """Return what changes with the file of a shard; None if it has no file of its own on a disk, or is gone."""
    entry, location = images.entries.get(name, (None, ""))
    if entry is None or entry.kind in KNOWN_KINDS or is_url(location):
        return None
    try:
        found = os.stat(location)  # noqa: PTH116 - one call, as often as an image is read
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
