"""Compaction: the merged copy holds each row once, sorted, and is renewed when parts are added."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from handmade import PARTS, RunMaker
from merging import SMALL, ManyImages, copy_of, files, merged_tables, seen, seen_plainly

from pipeline.errors import ConfigError, DamagedRunError
from pipeline.results.verify import verify
from pipeline.storage.compaction import Limits, compact, drop
from pipeline.storage.local_store import LocalStore
from pipeline.storage.merged import COMPACT, files_of, merged_path
from pipeline.storage.ownership import take_ownership
from pipeline.storage.run_folder import RECEIPTS
from pipeline.storage.sorting import SORTED_BY


def test_camatlas_reads_the_copy_and_finds_the_same_rows(small_run: RunMaker) -> None:
    before = seen(small_run.folder)
    done = compact(small_run.store)
    assert (done.new, done.record.rows, done.record.parts_count) == (True, 10, 3)
    assert files(small_run) == (merged_path(done.record.files[0].name),)
    assert seen(small_run.folder) == before == seen_plainly(small_run.folder)
    assert verify(small_run.store).problems == []


def test_parts_and_receipts_are_not_changed(small_run: RunMaker) -> None:
    names = [*(part.file for part in PARTS), *(part.receipt for part in PARTS), "run.json"]
    before = {name: (small_run.folder / name).read_bytes() for name in names}
    compact(small_run.store)
    assert {name: (small_run.folder / name).read_bytes() for name in names} == before
    assert set(small_run.store.names()) == {*(part.file for part in PARTS), RECEIPTS, "run.json", COMPACT}


def test_dataset_readers_ignore_the_copy(small_run: RunMaker) -> None:
    compact(small_run.store)
    found = ds.dataset(small_run.folder, format="parquet", exclude_invalid_files=True)
    assert sorted(Path(name).name for name in found.files) == [part.file for part in PARTS]
    assert found.count_rows() == 10


def test_merged_files_are_sorted_bounded_and_disjoint(many: ManyImages) -> None:
    compact(many.store, SMALL)
    tables = merged_tables(many)
    assert len(tables) > 5
    assert all(0 < table.num_rows <= SMALL.rows for table in tables)
    keys = [row for table in tables for row in zip(*(table[name].to_pylist() for name in SORTED_BY), strict=True)]
    assert keys == sorted(keys)
    assert len(set(keys)) == 180
    assert tables[0].schema.equals(many.schema, check_metadata=False)


def test_parts_added_after_compaction_are_read_too(maker: RunMaker) -> None:
    maker.owned().publish(*PARTS[:2])
    compact(maker.store)
    maker.publish(PARTS[2])
    found = files_of(maker.store, maker.manifest.run_id)
    assert (len(found.merged), found.unmerged) == (1, (PARTS[2],))
    assert seen(maker.folder) == seen_plainly(maker.folder)
    assert verify(maker.store).problems == []


def test_the_next_compaction_includes_new_parts_and_removes_the_older_copy(maker: RunMaker) -> None:
    maker.owned().publish(*PARTS[:2])
    first = compact(maker.store).record
    maker.publish(PARTS[2])
    second = compact(maker.store)
    assert second.new
    assert second.record.parts_count == 3
    assert set(copy_of(maker.folder)) == {"record-000002.json", *(file.name for file in second.record.files)}
    assert not {file.name for file in first.files} & set(copy_of(maker.folder))
    assert seen(maker.folder) == seen_plainly(maker.folder)


def test_a_complete_copy_is_not_rewritten(small_run: RunMaker) -> None:
    first = compact(small_run.store)
    before = copy_of(small_run.folder)
    again = compact(small_run.store)
    assert (again.new, again.record) == (False, first.record)
    assert copy_of(small_run.folder) == before


def test_only_leftovers_of_a_crash_are_removed(small_run: RunMaker) -> None:
    left = (f"000001-{'a' * 32}-00000.parquet", f".000001-{'a' * 32}-00001.parquet.{'b' * 32}.tmp")
    others = (f"000002-{'a' * 32}-00000.parquet", "notes.txt", "000001-mine.parquet")
    (small_run.folder / COMPACT).mkdir()
    for name in (*left, *others):
        (small_run.folder / COMPACT / name).write_bytes(b"half")
    done = compact(small_run.store)
    mine = {"record-000001.json", *(file.name for file in done.record.files)}
    assert set(copy_of(small_run.folder)) == mine | set(others), "another compaction may be writing number 2"
    (small_run.folder / COMPACT / left[0]).write_bytes(b"half")
    compact(small_run.store)
    assert set(copy_of(small_run.folder)) == mine | set(others)
    drop(small_run.store)
    assert set(copy_of(small_run.folder)) == {"notes.txt", "000001-mine.parquet"}
    assert seen(small_run.folder) == seen_plainly(small_run.folder)


def test_compaction_needs_a_run_with_a_finished_chunk(maker: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        compact(LocalStore(tmp_path / "none"))
    with pytest.raises(ConfigError, match="holds no finished chunk yet"):
        compact(maker.owned().store)


def test_a_run_with_a_copy_can_be_resumed(maker: RunMaker) -> None:
    maker.owned().publish(PARTS[0])
    compact(maker.store)
    assert not take_ownership(maker.store, maker.manifest)
    maker.work(maker.store)
    assert seen(maker.folder) == seen_plainly(maker.folder)
    assert verify(maker.store).problems == []


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """Arrow memory, measured at each read and publish, stays below twice the largest part."""
    held: list[int] = []

    class Watched(LocalStore):
        def read(self, name: str) -> bytes:
            held.append(pa.total_allocated_bytes())
            return super().read(name)

        def publish(self, name: str, data: bytes) -> bool:
            held.append(pa.total_allocated_bytes())
            return super().publish(name, data)

    many = ManyImages(tmp_path / "run", images=3000).complete()
    whole = sum(pq.read_table(many.folder / part.file).nbytes for part in PARTS)
    before = pa.total_allocated_bytes()
    limits = Limits(size=50_000)
    compact(Watched(many.folder), limits)
    largest_part = whole // 3
    assert len(copy_of(many.folder)) > 10
    assert max(held) - before < 2 * largest_part < whole


def test_large_rows_make_smaller_row_groups(many: ManyImages, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(many.store, Limits(group_size=4_000))
    (name,) = files(many)
    metadata = pq.read_metadata(many.folder / name)
    assert metadata.num_row_groups > 5
    assert max(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)) < 8_000


def test_values_are_copied_exactly(many: ManyImages) -> None:
    compact(many.store, SMALL)
    by_key = [(name, "ascending") for name in SORTED_BY]
    whole = pa.concat_tables([many.table(part) for part in PARTS]).sort_by(by_key)
    assert pa.concat_tables(merged_tables(many)).equals(whole)
    assert pc.all(pc.is_valid(whole["map"])).as_py()


def test_a_run_with_a_missing_part_is_not_merged(small_run: RunMaker) -> None:
    (small_run.folder / PARTS[1].file).unlink()
    with pytest.raises(DamagedRunError, match=rf"{PARTS[1].file} is missing"):
        compact(small_run.store)
