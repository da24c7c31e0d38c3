"""Names of parts, receipts, and the removal of temporary files that a dead driver left."""

import json
from pathlib import Path
from typing import Any

import pytest
from disk import HEX, everything_in
from handmade import PARTS, RunMaker
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import sweep
from pipeline.storage.run_folder import RECEIPTS, PartName, Receipt, part_names, receipts, temporaries


@given(shard=st.integers(0, 10**9), chunk=st.integers(0, 10**6))
def test_a_part_name_can_be_read_back(shard: int, chunk: int) -> None:
    part = PartName(shard, chunk)
    assert PartName.parse(part.file) == part
    assert part.receipt == f"{RECEIPTS}/{Path(part.file).stem}.json"


def test_part_names_are_padded_and_grow_beyond_their_width() -> None:
    assert PartName(7, 3).file == "part-00007-003.parquet"
    assert PartName(123456, 1234).file == "part-123456-1234.parquet"


@pytest.mark.parametrize(
    "name",
    [
        "part-0-0.parquet",
        "part-00000-00.parquet",
        "part-000000-000.parquet",
        "part-00000-0000.parquet",
        "part-00000-000.parquet.tmp",
        ".part-00000-000.parquet",
        "part-00000-000 (copy).parquet",
        "part-00000-000.parquet\n",
        "Part-00000-000.parquet",
        "part-00000-000.json",
        "part--0001-000.parquet",
        "part-٠٠٠٠٠-٠٠٠.parquet",
        "run.json",
    ],
)
def test_other_names_are_not_parts(name: str) -> None:
    assert PartName.parse(name) is None


def test_parts_are_listed_in_numerical_order(store: LocalStore) -> None:
    parts = [PartName(2, 0), PartName(100_000, 0), PartName(2, 1000), PartName(2, 999)]
    for part in parts:
        store.publish(part.file, b"x")
    store.publish("run.json", b"x")
    assert part_names(store) == sorted(parts)
    assert sorted(parts)[-1] == PartName(100_000, 0)


def test_a_receipt_describes_the_published_bytes() -> None:
    receipt = Receipt.of(PartName(1, 2), b"abc", 7)
    assert receipt.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (receipt.part, receipt.size, receipt.rows) == ("part-00001-002.parquet", 3, 7)
    assert Receipt.from_json(receipt.to_json()) == receipt


@pytest.mark.parametrize(
    "change", [{"part": 1}, {"sha256": None}, {"size": "3"}, {"rows": 7.0}, {"rows": True}, {"surprise": 1}]
)
def test_a_receipt_with_wrong_fields_is_refused(change: dict[str, Any]) -> None:
    fields = json.loads(Receipt.of(PartName(1, 2), b"abc", 7).to_json()) | change
    with pytest.raises((ValueError, TypeError)):
        Receipt.from_json(json.dumps(fields).encode())


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"7", b"{", b"\xff"])
def test_an_invalid_receipt_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        Receipt.from_json(text)


def test_sweep_removes_only_temporary_files_whose_target_is_published(store: LocalStore) -> None:
    store.folder.mkdir()
    (store.folder / RECEIPTS).mkdir()
    published, pending = PartName(0, 0), PartName(0, 1)
    store.publish(published.file, b"x")
    store.publish(published.receipt, b"x")
    kept = [
        f".{pending.file}.{HEX}.tmp",
        f".{published.file}.tmp",
        f".{published.file}.{HEX[:-1]}.tmp",
        f"{published.file}.{HEX}.tmp",
        f"{RECEIPTS}/.{Path(pending.receipt).name}.{HEX}.tmp",
        ".hidden",
    ]
    swept = [f".{published.file}.{HEX}.tmp", f"{RECEIPTS}/.{Path(published.receipt).name}.{HEX}.tmp"]
    for name in (*kept, *swept):
        (store.folder / name).write_bytes(b"x")
    sweep(store)
    assert everything_in(store.folder) == sorted([*kept, published.file, RECEIPTS, published.receipt])


def test_sweep_writes_the_receipt_of_a_writer_that_died(small_run: RunMaker) -> None:
    first, second = PARTS[:2]
    before = (small_run.folder / first.receipt).read_bytes()
    (small_run.folder / second.file).write_bytes(b"torn")
    for part in (first, second):
        (small_run.folder / part.receipt).rename(small_run.folder / RECEIPTS / f".{Path(part.receipt).name}.{HEX}.tmp")
    sweep(small_run.store)
    assert (small_run.folder / first.receipt).read_bytes() == before
    assert [name for name, _ in temporaries(small_run.store, RECEIPTS)] == [
        f"{RECEIPTS}/.{Path(second.receipt).name}.{HEX}.tmp"
    ], "a damaged part gets no receipt"


def test_receipts_are_read_without_temporary_files(store: LocalStore) -> None:
    store.publish(PartName(0, 0).receipt, b"{}")
    (store.folder / RECEIPTS / f".x.json.{HEX}.tmp").write_bytes(b"half")
    assert list(receipts(store)) == [("part-00000-000.json", b"{}")]
