"""What one worker of a run does: explain chunk after chunk, commit each, and tell of it."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.decode import DecodedChunk
from pipeline.run.attempts import Attempts, pieces, work_of
from pipeline.storage.parts import KEY_COLUMNS, Footer, publish_part
from pipeline.storage.store import open_store
from pipeline.telemetry.events import Committed, Heartbeat, Usage
from pipeline.telemetry.timers import PUBLISH, READ, Stopwatch, Timeline
from schemas.explanation import SHARD_STAGE

Explain: TypeAlias = Callable[[DecodedChunk], Iterator[pa.Table | Usage]]
"""Explains a chunk; each table holds the rows of some images, and what it took may be told between."""
WorkerEvent: TypeAlias = Heartbeat | Committed
HEARTBEAT_SECONDS = 5.0
"""A worker tells how far it is when a load takes longer than this."""


class Worker:
    """Explains chunks and commits them; two calls at a time, so that the disk does not keep the model waiting.

    Only one of the calls has the model: while it explains, the other commits, and then holds the next load ready.
    """

    def __init__(self, explain: Explain, run_id: str, url: str, attempts: Attempts) -> None:
        self._explain, self._run_id, self._store = explain, run_id, open_store(url)
        self._attempts = attempts
        self._model_is_taken = threading.Lock()
        self._timeline, self._name = Timeline(), uuid.uuid4().hex[:8]

    def tell(self, load: Iterable[DecodedChunk]) -> Iterator[list[WorkerEvent]]:
        """Work on a load; speaks at its end, and before that while it goes on, so that progress and a stall show."""
        event: list[WorkerEvent] = []
        told_at = time.monotonic()
        with self._timeline.load():
            for item in self._work(load):
                event.append(item)
                if time.monotonic() - told_at >= HEARTBEAT_SECONDS:
                    yield event
                    event, told_at = [], time.monotonic()
        yield event

    def _work(self, load: Iterable[DecodedChunk]) -> Iterator[WorkerEvent]:
        for chunk in load:
            tables: list[pa.Table] = []
            usage: list[Usage] = []
            tries = 0
            with self._model_is_taken, self._timeline.model():
                for tries, piece in enumerate(pieces(chunk, self._attempts), 1):  # noqa: B007 - their number is meant
                    for told in self._explain(piece):
                        if isinstance(told, Usage):
                            usage.append(told)
                            continue
                        tables.append(told)
                        if images := _images_in(told):
                            yield Heartbeat(images)
            yield self._committed(chunk, sorted_rows(tables), usage, isolated=tries > 1)
            self._attempts.end(work_of(chunk))

    def _committed(self, chunk: DecodedChunk, rows: pa.Table, usage: list[Usage], *, isolated: bool) -> Committed:
        footer, watch = footer_of(chunk, self._run_id), Stopwatch()
        with watch.timing(PUBLISH):
            receipt = publish_part(self._store, rows, footer)
        codes = Counter(code for code in rows["error_code"].to_pylist() if code is not None)
        own = Usage({READ: chunk.seconds, **watch.take(), **self._timeline.take()})
        return Committed(
            footer.shard, footer.chunk, footer.images, chunk.encoded_bytes, dict(codes), ours=receipt is not None,
            worker=self._name, isolated=isolated, waiting=self._timeline.inside - 1, usage=together([own, *usage]),
        )  # fmt: skip


def sorted_rows(tables: Iterable[pa.Table]) -> pa.Table:
    """Put the rows of a chunk together in their one order."""
    return pa.concat_tables(tables).sort_by([(name, "ascending") for name in KEY_COLUMNS])


def footer_of(decoded: DecodedChunk, run_id: str) -> Footer:
    """Say what the part of a chunk says of itself."""
    chunk = decoded.chunk
    images = len(decoded.samples) + sum(failure.is_image for failure in decoded.failures)
    return Footer(run_id, chunk.shard.ordinal, chunk.ordinal, chunk.last, images)


def _images_in(table: pa.Table) -> int:
    images = table.filter(pc.not_equal(pc.fill_null(table["error_stage"], ""), SHARD_STAGE))
    return len(images["image_key"].unique())


def together(usage: Iterable[Usage]) -> Usage:
    """Add up what several things took."""
    seconds: dict[str, float] = {}
    passes: Counter[str] = Counter()
    batches: list[int] = []
    for each in usage:
        batches += [] if each.batch is None else [each.batch]
        passes.update(each.passes)
        for stage, more in each.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + more
    return Usage(seconds, dict(passes), min(batches, default=None))
