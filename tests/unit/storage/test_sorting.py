"""External sorting: all rows are returned, sorted, one range after another."""

import itertools
import random
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import StoreError
from pipeline.storage.sorting import SORTED_BY, KeySample, Spill, temporary_folder

ALPHABET = ["", "\0", "a", "b", "\n", "é", "\u202e", "\uffff", "😀", "Z", "0"]


def keys_of(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return ["".join(chance.choices(ALPHABET, k=chance.randrange(4))) for _ in range(count)]


def table_of(keys: list[str], first: int = 0) -> pa.Table:
    return pa.table(
        {
            "image_key": pa.array(keys, pa.string()),
            "shard": pa.array(["a.tar"] * len(keys)),
            "target": pa.array([None if place % 5 else place for place in range(len(keys))], pa.int32()),
            "method": pa.array([f"m{place % 3}" for place in range(len(keys))]),
            "row": pa.array(range(first, first + len(keys))),
        }
    )


@pytest.mark.parametrize("held", [1, 2_000, 10**9])
@pytest.mark.parametrize("seed", range(3))
def test_ranges_are_sorted_and_complete(tmp_path: Path, held: int, seed: int) -> None:
    keys = keys_of(seed, 600)
    sample = KeySample()
    spill = Spill(tmp_path, bounds_of(sample, keys, 50), held)
    for start in range(0, 600, 100):
        spill.add(table_of(keys[start : start + 100], start))
    tables = list(spill.tables())
    assert len(tables) > 5
    found = pa.concat_tables(tables)
    assert found.equals(found.sort_by([(name, "ascending") for name in SORTED_BY]))
    assert sorted(found["row"].to_pylist()) == list(range(600))
    edges = [(table["image_key"][0].as_py(), table["image_key"][-1].as_py()) for table in tables]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(edges))
    assert list(tmp_path.iterdir()) == []


def bounds_of(sample: KeySample, keys: list[str], rows: int) -> list[str]:
    sample.add(keys, 0)
    return sample.bounds(rows, 1)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_sample_is_bounded_and_evenly_spaced(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr("pipeline.storage.sorting._SAMPLED", 50)
    keys = [f"{number:05d}" for number in range(3000)]
    sample = KeySample()
    for start in range(0, 3000, batch):
        sample.add(keys[start : start + batch], 10 * len(keys[start : start + batch]))
    assert (sample.rows, sample.size, sample.stride) == (3000, 30_000, 64)
    assert sample.keys == keys[::64]


def test_ranges_respect_the_limits() -> None:
    sample = KeySample()
    keys = [f"{number:04d}" for number in range(1000)]
    sample.add(random.Random(0).sample(keys, 1000), 50_000)
    assert sample.bounds(1000, 50_000) == []
    for bounds in (sample.bounds(100, 10**9), sample.bounds(10**9, 5_000)):
        edges = [0, *(int(bound) for bound in bounds), 1000]
        assert all(80 <= end - start <= 100 for start, end in itertools.pairwise(edges))


def test_one_key_is_one_range() -> None:
    sample = KeySample()
    sample.add(["same"] * 1000, 1000)
    assert len(sample.bounds(10, 10**9)) <= 1


def test_rows_with_other_columns_are_refused(tmp_path: Path) -> None:
    spill = Spill(tmp_path, [], 1)
    spill.add(table_of(["a"]))
    with pytest.raises(ValueError, match="columns differ from those"):
        spill.add(table_of(["a"]).drop_columns(["row"]))


def test_the_temporary_folder_is_removed_and_needs_an_existing_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder() as folder:
        (folder / "rows").write_bytes(b"x")
        assert folder.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(StoreError, match=f"cannot sort in {tmp_path}/none: No such file .* TMPDIR"), temporary_folder():
        pass


@pytest.mark.parametrize("moment", ["writing", "reading"])
def test_a_disk_error_during_sorting_is_a_store_error(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "gone"
    spill = Spill(folder, [], 1)
    if moment == "reading":
        folder.mkdir()
        spill.add(table_of(["a"]))
        (folder / "000000.arrow").unlink()
        (folder / "000000.arrow").mkdir()
    with pytest.raises(StoreError, match=f"cannot sort in {folder}"):
        spill.add(table_of(["a"])) if moment == "writing" else list(spill.tables())
