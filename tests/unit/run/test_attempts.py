"""Chunks that kill their worker: the cause is quarantined, all other images are explained, and the run ends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pictures import LIMITS, noise, sample, saved

from pipeline.data.decode import DecodedChunk, decode_chunk
from pipeline.data.sources.shards import Chunk, Failure, Shard
from pipeline.errors import StalledError
from pipeline.explain.rows import failure_row, to_table
from pipeline.run.attempts import MOST_QUARANTINED, pieces, work_of
from pipeline.run.ledger import ENDS, Attempt, Ledger, Work
from pipeline.run.worker import Worker
from pipeline.settings.preprocess import Preprocess
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import read_part
from schemas.explanation import explanation_schema

SHARD = Shard(0, "s.tar", "tar", "", 0, "")


class Died(BaseException):
    """Simulates the death of the worker."""


def chunk_of(images: int) -> DecodedChunk:
    samples = tuple(sample(saved(noise(8, 8)), f"{index:02d}") for index in range(images))
    failure = Failure("lost", SHARD.name, "read", "duplicate_key", "")
    return decode_chunk(Chunk(SHARD, 0, True, samples, (failure,)), Preprocess(8, None), LIMITS)


def worker(folder: Path, ledger: Ledger, dies: Callable[[str], bool]) -> Worker:
    """Make a worker that marks each image as seen, or dies at it."""

    def explain(chunk: DecodedChunk) -> Iterator[pa.Table]:
        for each in chunk.samples:
            if dies(each.key):
                raise Died
        seen = [Failure(each.key, SHARD.name, "explain", "seen", "") for each in chunk.samples]
        rows = [failure_row(failure, chunk.chunk.ordinal) for failure in (*seen, *chunk.failures)]
        yield to_table(rows, explanation_schema([]))

    return Worker(explain, "run", str(folder), ledger)


def until_done(folder: Path, chunk: DecodedChunk, dies: Callable[[str], bool]) -> tuple[int, dict[str, str]]:
    """Start workers until one finishes the chunk; returns how many died, and the code of each image."""
    ledger = Ledger()
    for deaths in range(100):
        try:
            list(worker(folder, ledger, dies).process([chunk]))
        except Died:
            continue
        rows, _ = read_part(LocalStore(folder).read("part-00000-000.parquet"))
        assert ledger == Ledger(), "a finished chunk leaves nothing in the ledger"
        return deaths, dict(zip(rows["image_key"].to_pylist(), rows["error_code"].to_pylist(), strict=True))
    raise AssertionError("the chunk was never finished")


@pytest.mark.parametrize("poison", [(), ("00",), ("03",), ("05",), ("01", "02"), ("00", "03", "05")])
def test_images_that_kill_their_worker_are_failures_and_the_others_are_explained(
    tmp_path: Path, poison: tuple[str, ...]
) -> None:
    deaths, codes = until_done(tmp_path, chunk_of(6), lambda key: key in poison)
    assert deaths == bool(poison) + ENDS * len(poison)
    expected = {f"{index:02d}": "seen" for index in range(6)} | dict.fromkeys(poison, "worker_died")
    assert codes == expected | {"lost": "duplicate_key"}


@pytest.mark.parametrize("moment", range(13))
def test_a_worker_killed_once_or_twice_costs_no_image(tmp_path: Path, moment: int) -> None:
    """The kills are in the first attempt, or at two different images of isolated attempts."""
    images = 0

    def killed(_: str) -> bool:
        nonlocal images
        images += 1
        return images in (3, 3 + moment)

    _, codes = until_done(tmp_path, chunk_of(6), killed)
    assert set(codes.values()) == {"seen", "duplicate_key"}


def test_a_chunk_with_too_many_quarantined_images_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(StalledError, match=r"9 images of chunk 0 of s\.tar"):
        until_done(tmp_path, chunk_of(MOST_QUARANTINED + 5), lambda _: True)


def test_the_first_attempt_gets_the_whole_chunk_and_the_next_one_single_images() -> None:
    ledger, chunk = Ledger(), chunk_of(3)
    assert list(pieces(chunk, ledger.begin(work_of(chunk)), ledger)) == [chunk]
    assert [len(piece.samples) for piece in pieces(chunk, ledger.begin(work_of(chunk)), ledger)] == [1, 1, 1, 0]


def test_no_image_is_quarantined_when_the_commit_ends_the_worker() -> None:
    ledger, chunk = Ledger(), chunk_of(3)
    for _ in range(5):
        list(pieces(chunk, ledger.begin(work_of(chunk)), ledger))  # explained, but the worker ends before the commit
    assert ledger.begin(Work("explain", 0, 0)) == Attempt(isolated=True)


def test_attempts_are_recorded_per_stage_shard_and_chunk() -> None:
    ledger = Ledger()
    ledger.begin(Work("explain", 0, 0))
    for other in (Work("explain", 0, 1), Work("explain", 1, 0), Work("read", 0, 0)):
        assert ledger.begin(other) == Attempt()
    assert ledger.begin(Work("explain", 0, 0)) == Attempt(isolated=True)
    ledger.end(Work("explain", 0, 0))
    assert ledger.begin(Work("explain", 0, 0)) == Attempt()
