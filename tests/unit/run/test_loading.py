"""Work units: every chunk of a shard is in exactly one, and units are filled up to their limits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import LIMITS, noise, saved
from tars import tar_of

from pipeline.data.decode_sandbox import DecodeSandbox
from pipeline.data.sources import Reading, Shard
from pipeline.run import loading
from pipeline.run.ledger import Ledger
from pipeline.run.loading import ReadPlan
from pipeline.settings.preprocess import Preprocess

SMALL = ReadPlan(Reading(), Preprocess(16, None), LIMITS, chunk_images=2, unit_bytes=0)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    """Eleven images: five chunks of two, one of one."""
    data = tar_of([(f"{index:02d}.jpg", saved(noise(20, 20), "JPEG")) for index in range(11)])
    path = tmp_path / "s.tar"
    path.write_bytes(data)
    return Shard(0, "s.tar", "tar", str(path), len(data), "")


def ordinals(plan: ReadPlan, shard: Shard) -> list[list[int]]:
    return [[decoded.chunk.ordinal for decoded in unit] for unit in plan.work_units(shard)]


def test_without_a_minimum_size_each_chunk_is_a_unit(shard: Shard) -> None:
    assert ordinals(SMALL, shard) == [[0], [1], [2], [3], [4], [5]]


def test_encoded_bytes_fill_a_unit(shard: Shard) -> None:
    (first,), *_ = SMALL.work_units(shard)
    plan = replace(SMALL, unit_bytes=first.encoded_bytes + 1)
    assert ordinals(plan, shard) == [[0, 1], [2, 3], [4, 5]]


def test_bytes_of_pixels_fill_a_unit(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MOST_PIXEL_BYTES", 3 * 2 * 16 * 16 * 3)
    assert ordinals(replace(SMALL, unit_bytes=10**9), shard) == [[0, 1, 2], [3, 4, 5]]
    monkeypatch.setattr(loading, "MOST_PIXEL_BYTES", 1)
    assert ordinals(replace(SMALL, unit_bytes=10**9), shard) == [[0], [1], [2], [3], [4], [5]]


def test_finished_chunks_are_left_out_and_the_others_do_not_change(shard: Shard) -> None:
    whole = {unit[0].chunk.ordinal: unit[0] for unit in SMALL.work_units(shard)}
    assert [ordinal for ordinal, chunk in whole.items() if chunk.chunk.last] == [5]
    rest = {unit[0].chunk.ordinal: unit[0] for unit in SMALL.work_units(shard, {1, 4})}
    assert sorted(rest) == [0, 2, 3, 5]
    for ordinal, chunk in rest.items():
        assert (chunk.chunk, chunk.samples) == (whole[ordinal].chunk, whole[ordinal].samples)
        np.testing.assert_array_equal(chunk.pixels_NHWC, whole[ordinal].pixels_NHWC)


class DiedError(BaseException):
    """Simulates the death of the reading process."""


def let_decoding_die(monkeypatch: pytest.MonkeyPatch, when: Callable[[bool], bool]) -> None:
    """Let decoding in this process (True) or in the sandbox's subprocess (False) raise DiedError."""

    def framing(name: str, here: bool) -> None:
        frame = getattr(DecodeSandbox, name)

        def dying(*arguments: object) -> object:
            if when(here):
                raise DiedError
            return frame(*arguments)

        monkeypatch.setattr(DecodeSandbox, name, dying)

    framing("frame", True)
    framing("frame_in_subprocess", False)


def test_a_chunk_at_which_the_reader_died_is_decoded_in_the_subprocess(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [unit[0] for unit in SMALL.work_units(shard)]
    ledger = Ledger()
    let_decoding_die(monkeypatch, lambda here: here)
    with pytest.raises(DiedError):
        list(SMALL.work_units(shard, {0, 2}, ledger))
    again = next(iter(SMALL.work_units(shard, {0, 2}, ledger)))[0]
    assert again.samples == whole[1].samples
    np.testing.assert_array_equal(again.pixels_NHWC, whole[1].pixels_NHWC)


def test_a_shard_that_was_read_leaves_nothing_in_the_ledger(shard: Shard) -> None:
    ledger = Ledger()
    list(SMALL.work_units(shard, (), ledger))
    assert ledger == Ledger()


def test_a_parquet_file_ends_at_the_chunk_that_crashes_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.parquet"
    images = [saved(noise(20, 20), "JPEG")] * 6
    pq.write_table(pa.table({"image": images, "key": [str(index) for index in range(6)]}), path)
    parquet = Shard(0, "s.parquet", "parquet", str(path), path.stat().st_size, "", images=6)
    ledger, read = Ledger(), loading.read_shard

    def dying(shard: Shard, reading: Reading) -> Iterator[object]:
        for number, item in enumerate(read(shard, reading)):
            if number == 3:
                raise DiedError
            yield item

    monkeypatch.setattr(loading, "read_shard", dying)
    for _ in range(3):
        with pytest.raises(DiedError):
            list(SMALL.work_units(parquet, (), ledger))
    chunks = [unit[0] for unit in SMALL.work_units(parquet, (), ledger)]
    assert [len(chunk.samples) for chunk in chunks] == [2, 0]
    assert [(failure.stage, failure.code) for failure in chunks[1].failures] == [("shard", "reader_died")]
    assert chunks[1].chunk.last
