"""One worker without Ray: explains one chunk at a time, commits each, and reports once per unit or more often."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pictures import LIMITS, noise, sample, saved

from pipeline.bench.handover import random_maps
from pipeline.data.decode import DecodedChunk, decode_chunk
from pipeline.data.sources.shards import Chunk, Failure, Shard
from pipeline.explain.row_columns import UnmadeRows, table_of
from pipeline.explain.rows import failure_row, to_table
from pipeline.run import worker as module
from pipeline.run.attempts import work_of
from pipeline.run.ledger import Ledger
from pipeline.run.worker import Worker, total_usage
from pipeline.settings.preprocess import Preprocess
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import read_part
from pipeline.telemetry.events import Committed, Heartbeat, Usage
from schemas.explanation import explanation_schema

SHARD = Shard(0, "s.tar", "tar", "", 0, "")
METHODS = 2


def chunk_of(ordinal: int, images: int = 3) -> DecodedChunk:
    samples = tuple(sample(saved(noise(8, 8)), f"{ordinal}-{index}") for index in range(images))
    return decode_chunk(Chunk(SHARD, ordinal, last=False, samples=samples), Preprocess(8, None), LIMITS)


def explain(chunk: DecodedChunk) -> Iterator[pa.Table]:
    """Yield a table per image, the last image first."""
    for each in reversed(chunk.samples):
        failure = Failure(each.key, SHARD.name, "explain", "model_error", "")
        yield to_table([failure_row(failure, chunk.chunk.ordinal)], explanation_schema([]))


def test_a_unit_is_reported_once_and_each_chunk_is_a_part(tmp_path: Path) -> None:
    (events,) = Worker(explain, "run", str(tmp_path), Ledger()).process([chunk_of(0), chunk_of(1)])
    assert sum(item.images for item in events if isinstance(item, Heartbeat)) == 6
    committed = [item for item in events if isinstance(item, Committed)]
    assert [(item.chunk, item.images, item.failures, item.ours) for item in committed] == [
        (0, 3, {"model_error": 3}, True),
        (1, 3, {"model_error": 3}, True),
    ]
    rows, footer = read_part(LocalStore(tmp_path).read("part-00000-001.parquet"))
    assert rows["image_key"].to_pylist() == ["1-0", "1-1", "1-2"]
    assert (footer.run_id, footer.chunk, footer.images, footer.last_chunk) == ("run", 1, 3, False)


def labelled(chunk: DecodedChunk) -> Iterator[pa.Table]:
    """Yield two rows for each image: labelled by its place, with a prediction; the last image has no label."""
    for number, each in enumerate(chunk.samples):
        row = failure_row(Failure(each.key, SHARD.name, "explain", "model_error", ""), chunk.chunk.ordinal)
        known = {"label": number if number < 2 else None, "predicted": 1, "confidence": 0.5}
        yield to_table([{**row, **known, "method": name} for name in ("gradcam", "ixg")], explanation_schema([]))


def test_labels_and_predictions_are_counted_once_for_an_image(tmp_path: Path) -> None:
    (events,) = Worker(labelled, "run", str(tmp_path), Ledger()).process([chunk_of(0)])
    (committed,) = [item for item in events if isinstance(item, Committed)]
    assert (committed.labelled, committed.confidence) == ({(0, 1): 1, (1, 1): 1}, 1.0)


def unmade(chunk: DecodedChunk) -> Iterator[UnmadeRows]:
    """Yield rows that are not a table yet: one batch of random maps, and a failure."""
    schema = explanation_schema([])
    yield UnmadeRows((random_maps(METHODS, (), 4),), schema)
    yield UnmadeRows((failure_row(Failure("bad", SHARD.name, "decode", "corrupt", ""), chunk.chunk.ordinal),), schema)


def test_rows_are_made_while_another_call_may_use_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(unmade, "run", str(tmp_path), Ledger())
    free: list[bool] = []

    def made(batches: list[UnmadeRows], schema: pa.Schema) -> pa.Table:
        free.append(not worker._model_lock.locked())
        return table_of(batches, schema)

    monkeypatch.setattr(module, "table_of", made)
    (events,) = worker.process([chunk_of(0)])
    assert free == [True]
    assert sum(item.images for item in events if isinstance(item, Heartbeat)) == 5
    rows, _ = read_part(LocalStore(tmp_path).read("part-00000-000.parquet"))
    assert rows.num_rows == 4 * METHODS + 1
    assert rows["error_code"].to_pylist().count("corrupt") == 1
    monkeypatch.setattr(module, "MOST_UNMADE_BYTES", 1)  # maps that need much memory do not wait
    (tmp_path / "other").mkdir()
    worker = Worker(unmade, "run", str(tmp_path / "other"), Ledger())
    list(worker.process([chunk_of(0)]))
    assert free == [True, False, True]
    assert read_part(LocalStore(tmp_path / "other").read("part-00000-000.parquet"))[0].equals(rows)


def test_a_unit_that_takes_long_is_reported_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    reports = list(Worker(explain, "run", str(tmp_path), Ledger()).process([chunk_of(0)]))
    assert [len(events) for events in reports] == [1, 1, 1, 1, 0]
    assert [type(events[0]) for events in reports[:4]] == [Heartbeat, Heartbeat, Heartbeat, Committed]


def test_a_commit_reports_the_usage_of_its_chunk(tmp_path: Path) -> None:
    def with_usage(chunk: DecodedChunk) -> Iterator[pa.Table | Usage]:
        yield from explain(chunk)
        yield Usage({"methods": 1.5}, {"forward": 7})

    chunks = [replace(chunk_of(ordinal), seconds=0.25) for ordinal in range(2)]
    (events,) = Worker(with_usage, "run", str(tmp_path), Ledger()).process(chunks)
    first, second = (item for item in events if isinstance(item, Committed))
    for item in (first, second):
        assert item.usage.passes == {"forward": 7}
        assert (item.usage.seconds["methods"], item.usage.seconds["read"]) == (1.5, 0.25)
        assert item.usage.seconds["publish"] > 0
        assert item.usage.seconds["explain"] > 0
        assert (item.isolated, item.waiting) == (False, 0)
    assert first.worker == second.worker != ""


def test_an_isolated_attempt_is_reported(tmp_path: Path) -> None:
    ledger, chunk = Ledger(), chunk_of(0, images=1)
    ledger.begin(work_of(chunk))
    (events,) = Worker(explain, "run", str(tmp_path), ledger).process([chunk])
    assert [item.isolated for item in events if isinstance(item, Committed)] == [True]


def test_a_failing_worker_closes_its_timeline(tmp_path: Path) -> None:
    def failing(chunk: DecodedChunk) -> Iterator[pa.Table]:
        raise RuntimeError("bug")
        yield

    worker = Worker(failing, "run", str(tmp_path), Ledger())
    for _ in range(3):
        with pytest.raises(RuntimeError):
            list(worker.process([chunk_of(0)]))
    assert worker._timeline.inside == 0


def test_usages_add_up() -> None:
    both = total_usage(
        [Usage({"read": 1.0}, {"head": 1}), Usage({"read": 0.5, "wait": 2.0}, {"head": 2, "forward": 3})]
    )
    assert both == Usage({"read": 1.5, "wait": 2.0}, {"head": 3, "forward": 3})
    assert total_usage([Usage(batch=8), Usage(batch=4), Usage()]).batch == 4


def test_a_chunk_that_was_published_before_is_not_ours(tmp_path: Path) -> None:
    list(Worker(explain, "run", str(tmp_path), Ledger()).process([chunk_of(0)]))
    (events,) = Worker(explain, "run", str(tmp_path), Ledger()).process([chunk_of(0)])
    assert [item.ours for item in events if isinstance(item, Committed)] == [False]


def test_concurrent_calls_use_the_model_one_at_a_time(tmp_path: Path) -> None:
    inside, most = 0, 0

    def watched(chunk: DecodedChunk) -> Iterator[pa.Table]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        yield from explain(chunk)
        inside -= 1

    worker = Worker(watched, "run", str(tmp_path), Ledger())
    calls = [
        threading.Thread(target=lambda i=i: list(worker.process([chunk_of(i), chunk_of(i + 10)]))) for i in range(3)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert most == 1
    assert len(list(tmp_path.glob("part-*.parquet"))) == 6
