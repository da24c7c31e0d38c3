"""One worker without Ray: it explains one chunk at a time, commits each, and speaks once a load or in time."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pictures import LIMITS, noise, sample, saved

from pipeline import worker as module
from pipeline.attempts import Ledger
from pipeline.decode import DecodedChunk, decode_chunk
from pipeline.framing import Preprocess
from pipeline.news import Beat, Committed
from pipeline.parts import read_part
from pipeline.rows import failure_row, to_table
from pipeline.sources.shards import Chunk, Failure, Shard
from pipeline.store import LocalStore
from pipeline.worker import Worker
from schemas.explanation import explanation_schema

SHARD = Shard(0, "s.tar", "tar", "", 0, "")


def chunk_of(ordinal: int, images: int = 3) -> DecodedChunk:
    samples = tuple(sample(saved(noise(8, 8)), f"{ordinal}-{index}") for index in range(images))
    return decode_chunk(Chunk(SHARD, ordinal, last=False, samples=samples), Preprocess(8, None), LIMITS)


def explain(chunk: DecodedChunk) -> Iterator[pa.Table]:
    """A table for each image, the last one first."""
    for each in reversed(chunk.samples):
        failure = Failure(each.key, SHARD.name, "explain", "model_error", "")
        yield to_table([failure_row(failure, chunk.chunk.ordinal)], explanation_schema([]))


def test_a_load_is_told_of_once_and_each_chunk_is_a_part(tmp_path: Path) -> None:
    (news,) = Worker(explain, "run", str(tmp_path), Ledger()).tell([chunk_of(0), chunk_of(1)])
    assert sum(item.images for item in news if isinstance(item, Beat)) == 6
    committed = [item for item in news if isinstance(item, Committed)]
    assert [(item.chunk, item.images, item.failures, item.ours) for item in committed] == [
        (0, 3, {"model_error": 3}, True),
        (1, 3, {"model_error": 3}, True),
    ]
    rows, footer = read_part(LocalStore(tmp_path).read("part-00000-001.parquet"))
    assert rows["image_key"].to_pylist() == ["1-0", "1-1", "1-2"]
    assert (footer.run_id, footer.chunk, footer.images, footer.last_chunk) == ("run", 1, 3, False)


def test_a_load_that_takes_long_is_told_of_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.0)
    told = list(Worker(explain, "run", str(tmp_path), Ledger()).tell([chunk_of(0)]))
    assert [len(news) for news in told] == [1, 1, 1, 1, 0]
    assert [type(news[0]) for news in told[:4]] == [Beat, Beat, Beat, Committed]


def test_what_somebody_else_published_is_not_ours(tmp_path: Path) -> None:
    list(Worker(explain, "run", str(tmp_path), Ledger()).tell([chunk_of(0)]))
    (news,) = Worker(explain, "run", str(tmp_path), Ledger()).tell([chunk_of(0)])
    assert [item.ours for item in news if isinstance(item, Committed)] == [False]


def test_two_calls_share_the_model_in_turns(tmp_path: Path) -> None:
    inside, most = 0, 0

    def watched(chunk: DecodedChunk) -> Iterator[pa.Table]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        yield from explain(chunk)
        inside -= 1

    worker = Worker(watched, "run", str(tmp_path), Ledger())
    calls = [threading.Thread(target=lambda i=i: list(worker.tell([chunk_of(i), chunk_of(i + 10)]))) for i in range(3)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert most == 1
    assert len(list(tmp_path.glob("part-*.parquet"))) == 6
