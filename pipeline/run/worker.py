"""One worker of a run: explains chunk after chunk, commits each, and reports events."""

import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.decode import DecodedChunk
from pipeline.errors import DeviceFailedError
from pipeline.explain.row_columns import UnmadeRows, table_of
from pipeline.run.attempts import pieces, work_of
from pipeline.run.ledger import Attempt, Attempts
from pipeline.storage.parts import KEY_COLUMNS, Footer, publish_part
from pipeline.storage.store import open_store
from pipeline.telemetry.events import Committed, Heartbeat, Usage
from pipeline.telemetry.timers import PUBLISH, READ, Stopwatch, Timeline
from schemas.explanation import SHARD_STAGE

Rows: TypeAlias = pa.Table | UnmadeRows
"""The rows of some images, as a table or not made yet."""
Explain: TypeAlias = Callable[[DecodedChunk], Iterator[Rows | Usage]]
"""Explains a chunk: yields rows, and may yield usages in between."""
WorkerEvent: TypeAlias = Heartbeat | Committed
HEARTBEAT_SECONDS = 5.0
"""A worker that is busy with one work unit for longer than this reports before the unit ends."""
MOST_UNMADE_BYTES = 64 * 2**20
"""Most bytes of maps that wait to be made rows; beyond, rows are made while the model waits."""


class Worker:
    """Explains chunks and commits them; runs two calls at a time, so that the model does not wait for the disk.

    Only one call uses the model. While it explains, the other makes tables of its rows and commits them, and then holds
    the next work unit ready.
    """

    def __init__(self, explain: Explain, run_id: str, url: str, attempts: Attempts) -> None:
        self._explain, self._run_id, self._store = explain, run_id, open_store(url)
        self._attempts = attempts
        self._model_lock = threading.Lock()
        self._timeline, self._name = Timeline(), uuid.uuid4().hex[:8]

    def process(self, unit: Iterable[DecodedChunk]) -> Iterator[list[WorkerEvent]]:
        """Explain and commit a work unit; yield its events at the end, and during long units to show progress."""
        events: list[WorkerEvent] = []
        reported_at = time.monotonic()
        with self._timeline.load():
            for event in self._events(unit):
                events.append(event)
                if time.monotonic() - reported_at >= HEARTBEAT_SECONDS:
                    yield events
                    events, reported_at = [], time.monotonic()
        yield events

    def _events(self, unit: Iterable[DecodedChunk]) -> Iterator[WorkerEvent]:
        for chunk in unit:
            rows: list[Rows] = []
            usage: list[Usage] = []
            with self._model_lock, self._timeline.model(), self._leaving_a_failed_device(chunk):
                attempt = self._attempts.begin(work_of(chunk))
                for piece in pieces(chunk, attempt, self._attempts):
                    for item in self._explain(piece):
                        if isinstance(item, Usage):
                            usage.append(item)
                            continue
                        rows = _bounded([*rows, item])
                        if images := _images_in(item):
                            yield Heartbeat(images)
            yield self._committed(chunk, sorted_rows(rows), usage, attempt)
            self._attempts.end(work_of(chunk))

    @contextmanager
    def _leaving_a_failed_device(self, chunk: DecodedChunk) -> Iterator[None]:
        """End this process if the device fails; Ray starts another one, which isolates the images of the chunk."""
        try:
            yield
        except DeviceFailedError as error:
            os.write(2, f"camatlas: {error}\n".encode())
            self._attempts.fail(work_of(chunk), str(error))
            os._exit(1)

    def _committed(self, chunk: DecodedChunk, rows: pa.Table, usage: list[Usage], attempt: Attempt) -> Committed:
        footer, watch = footer_of(chunk, self._run_id), Stopwatch()
        with watch.timing(PUBLISH):
            receipt = publish_part(self._store, rows, footer)
        codes = Counter(code for code in rows["error_code"].to_pylist() if code is not None)
        labelled, confidence = _labelled(rows)
        own = Usage({READ: chunk.seconds, **watch.take(), **self._timeline.take()})
        return Committed(
            footer.shard, footer.chunk, footer.images, chunk.encoded_bytes, dict(codes), ours=receipt is not None,
            worker=self._name, isolated=attempt.isolated, waiting=self._timeline.inside - 1,
            usage=total_usage([own, *usage]),
            deep_images=chunk.depth.images, deep_peak=chunk.depth.peak, reasons=tuple(attempt.reasons.values()),
            labelled=labelled, confidence=confidence,
        )  # fmt: skip


def sorted_rows(rows: Iterable[Rows]) -> pa.Table:
    """Make one table of the rows of a chunk and sort them by key, so that their order is always the same."""
    return _made(list(rows)).sort_by([(name, "ascending") for name in KEY_COLUMNS])


def _made(rows: Sequence[Rows]) -> pa.Table:
    unmade = [some for some in rows if isinstance(some, UnmadeRows)]
    tables = [some for some in rows if isinstance(some, pa.Table)]
    return pa.concat_tables([*tables, table_of(unmade, unmade[0].schema)] if unmade else tables)


def _bounded(rows: list[Rows]) -> list[Rows]:
    """Make rows of maps that need too much memory as they are."""
    waiting = sum(some.nbytes for some in rows if isinstance(some, UnmadeRows))
    return [_made(rows)] if waiting > MOST_UNMADE_BYTES else rows


def footer_of(decoded: DecodedChunk, run_id: str) -> Footer:
    """Build the footer of a chunk's part."""
    chunk = decoded.chunk
    images = len(decoded.samples) + sum(failure.is_image for failure in decoded.failures)
    return Footer(run_id, chunk.shard.ordinal, chunk.ordinal, chunk.last, images)


def _images_in(rows: Rows) -> int:
    if isinstance(rows, UnmadeRows):
        return rows.images
    images = rows.filter(pc.not_equal(pc.fill_null(rows["error_stage"], ""), SHARD_STAGE))
    return len(images["image_key"].unique())


def _labelled(rows: pa.Table) -> tuple[Counter[tuple[int, int]], float]:
    """Count images by label and prediction, and add up their confidences; all rows of an image have the same."""
    known = rows.filter(pc.and_(pc.is_valid(rows["label"]), pc.is_valid(rows["predicted"])))
    images = known.group_by("image_key").aggregate([(name, "max") for name in ("label", "predicted", "confidence")])
    pairs = zip(images["label_max"].to_pylist(), images["predicted_max"].to_pylist(), strict=True)
    return Counter(pairs), pc.sum(images["confidence_max"]).as_py() or 0.0


def total_usage(usage: Collection[Usage]) -> Usage:
    """Add up usages; the batch size is the smallest of theirs."""
    seconds: dict[str, float] = {}
    passes: Counter[str] = Counter()
    batches: list[int] = []
    for each in usage:
        batches += [] if each.batch is None else [each.batch]
        passes.update(each.passes)
        for stage, more in each.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + more
    notes = dict.fromkeys(note for each in usage for note in each.notes)
    return Usage(seconds, dict(passes), min(batches, default=None), tuple(notes))
