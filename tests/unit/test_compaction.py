"""Compaction: the merged copy holds each row once, is small in what it reads, and is never trusted without reason."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from asking import rows
from damage import replace_part
from handmade import PARTS, RunMaker
from merging import ManyImages, copy_of, row_groups, seen, seen_plainly

from pipeline import compaction
from pipeline.compaction import Limits, compact, drop
from pipeline.errors import ConfigError, DamagedRunError, StoreError
from pipeline.merged import COMPACT, files_of, merged_path, record_path
from pipeline.query import open_run
from pipeline.run_folder import RECEIPTS, claim
from pipeline.sorting import SORTED_BY
from pipeline.store import LocalStore
from pipeline.verify import verify
from schemas.compaction import CompactionRecord

SMALL = Limits(rows=25, group_rows=4)


@pytest.fixture
def many(tmp_path: Path) -> ManyImages:
    """A finished run of 180 rows in three parts."""
    return ManyImages(tmp_path / "run").complete()


def files(run: RunMaker) -> tuple[str, ...]:
    return files_of(run.store, run.manifest.run_id).names


def merged_tables(run: RunMaker) -> list[pa.Table]:
    return [pq.read_table(run.folder / name) for name in files(run)]


def test_readers_of_ours_read_the_copy_and_see_the_same_rows(small_run: RunMaker) -> None:
    before = seen(small_run.folder)
    done = compact(small_run.store)
    assert (done.new, done.record.rows, done.record.parts_count) == (True, 10, 3)
    assert files(small_run) == (merged_path(done.record.files[0].name),)
    assert seen(small_run.folder) == before == seen_plainly(small_run.folder)
    assert verify(small_run.store).problems == []


def test_parts_and_receipts_stay_as_they_are(small_run: RunMaker) -> None:
    names = [*(part.file for part in PARTS), *(part.receipt for part in PARTS), "run.json"]
    before = {name: (small_run.folder / name).read_bytes() for name in names}
    compact(small_run.store)
    assert {name: (small_run.folder / name).read_bytes() for name in names} == before
    assert set(small_run.store.names()) == {*(part.file for part in PARTS), RECEIPTS, "run.json", COMPACT}


def test_readers_of_folders_do_not_look_into_the_copy(small_run: RunMaker) -> None:
    compact(small_run.store)
    found = ds.dataset(small_run.folder, format="parquet", exclude_invalid_files=True)
    assert sorted(Path(name).name for name in found.files) == [part.file for part in PARTS]
    assert found.count_rows() == 10


def test_merged_files_are_sorted_bounded_and_overlap_nowhere(many: ManyImages) -> None:
    compact(many.store, SMALL)
    tables = merged_tables(many)
    assert len(tables) > 5
    assert all(0 < table.num_rows <= SMALL.rows for table in tables)
    keys = [row for table in tables for row in zip(*(table[name].to_pylist() for name in SORTED_BY), strict=True)]
    assert keys == sorted(keys)
    assert len(set(keys)) == 180
    assert tables[0].schema.equals(many.schema, check_metadata=False)


def test_an_image_is_looked_up_in_one_row_group_where_every_part_had_to_be_read(many: ManyImages) -> None:
    keys = [many.image(part, number) for part in PARTS for number in range(many.images)]
    before = [row_groups(many.store, files(many), key) for key in keys]
    compact(many.store, SMALL)
    after = [row_groups(many.store, files(many), key) for key in keys]
    assert sum(before) > 2 * len(keys)
    assert max(after) <= 2
    assert sum(after) < 1.5 * len(keys)


@pytest.mark.parametrize("number", range(5))
def test_a_lookup_opens_the_one_file_that_can_hold_the_key(many: ManyImages, number: int) -> None:
    """All others are spoilt, but for the first, of which the schema is read."""
    record = compact(many.store, SMALL).record
    key = many.image(PARTS[1], number)
    others = [file for file in record.files[1:] if not file.first_key <= key <= file.last_key]
    assert len(others) >= len(record.files) - 3
    for file in others:
        (many.folder / merged_path(file.name)).write_bytes(b"")
    with open_run(many.folder) as run:
        assert rows(run, "SELECT count(*) FROM explanations WHERE image_key = ?", [key]) == [(2,)]


@pytest.mark.parametrize(
    "condition",
    ["image_key = ?", "image_key <> ?", "image_key < ?", "image_key >= ?", "image_key > ? OR method = 'gradcam'",
     "image_key IN ('', ?)", "starts_with(image_key, ?)", "image_key IS DISTINCT FROM ?", "NOT image_key > ?"],
)  # fmt: skip
def test_no_condition_on_keys_loses_a_row(many: ManyImages, tmp_path: Path, condition: str) -> None:
    plain = ManyImages(tmp_path / "plain").complete()
    files = compact(many.store, SMALL).record.files
    keys = [key for file in files[::2] for key in (file.first_key, file.last_key)]
    question = f"SELECT image_key, method FROM explanations WHERE {condition} ORDER BY ALL"
    with open_run(many.folder) as run, open_run(plain.folder) as expected:
        for key in [*keys, many.image(PARTS[0], 3), "", "zzz", "7"]:
            assert rows(run, question, [key]) == rows(expected, question, [key])


def bytes_read() -> int:
    """Bytes that this process has asked the system to read so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar:"))


def test_a_lookup_in_sql_reads_a_small_part_of_the_copy(tmp_path: Path) -> None:
    many = ManyImages(tmp_path / "run", images=2000).complete()
    record = compact(many.store, Limits(group_rows=200)).record
    key = many.image(PARTS[0], 7)
    with open_run(many.folder) as run:
        question = "SELECT * FROM explanations WHERE image_key = ?"
        run.arrow(question, [key])  # footers are read once
        before = bytes_read()
        assert run.arrow(question, [key]).num_rows == 2
        assert bytes_read() - before < sum(file.size for file in record.files) / 20


def test_what_grows_after_compaction_is_read_beside_the_copy(maker: RunMaker) -> None:
    maker.claimed().publish(*PARTS[:2])
    compact(maker.store)
    maker.publish(PARTS[2])
    found = files_of(maker.store, maker.manifest.run_id)
    assert (len(found.merged), found.beside) == (1, (PARTS[2],))
    assert seen(maker.folder) == seen_plainly(maker.folder)
    assert verify(maker.store).problems == []


def test_the_next_compaction_takes_in_what_has_grown_and_removes_the_older_copy(maker: RunMaker) -> None:
    maker.claimed().publish(*PARTS[:2])
    first = compact(maker.store).record
    maker.publish(PARTS[2])
    second = compact(maker.store)
    assert second.new
    assert second.record.parts_count == 3
    assert set(copy_of(maker.folder)) == {"record-000002.json", *(file.name for file in second.record.files)}
    assert not {file.name for file in first.files} & set(copy_of(maker.folder))
    assert seen(maker.folder) == seen_plainly(maker.folder)


def test_a_copy_of_all_parts_is_left_alone(small_run: RunMaker) -> None:
    first = compact(small_run.store)
    before = copy_of(small_run.folder)
    again = compact(small_run.store)
    assert (again.new, again.record) == (False, first.record)
    assert copy_of(small_run.folder) == before


def test_what_a_crash_left_is_removed_and_nothing_else(small_run: RunMaker) -> None:
    left = (f"000001-{'a' * 32}-00000.parquet", f".000001-{'a' * 32}-00001.parquet.{'b' * 32}.tmp")
    others = (f"000002-{'a' * 32}-00000.parquet", "notes.txt", "000001-mine.parquet")
    (small_run.folder / COMPACT).mkdir()
    for name in (*left, *others):
        (small_run.folder / COMPACT / name).write_bytes(b"half")
    done = compact(small_run.store)
    mine = {"record-000001.json", *(file.name for file in done.record.files)}
    assert set(copy_of(small_run.folder)) == mine | set(others), "a compaction under way may be writing number 2"
    (small_run.folder / COMPACT / left[0]).write_bytes(b"half")
    compact(small_run.store)
    assert set(copy_of(small_run.folder)) == mine | set(others)
    drop(small_run.store)
    assert set(copy_of(small_run.folder)) == {"notes.txt", "000001-mine.parquet"}
    assert seen(small_run.folder) == seen_plainly(small_run.folder)


def spoilt(text: bytes, seed: int) -> bytes:
    """The text with one bit flipped."""
    chance = random.Random(seed)
    data = bytearray(text)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def test_a_record_with_any_bit_flipped_is_not_trusted(maker: RunMaker) -> None:
    """It could name a part too few, whose rows would then be there twice."""
    maker.claimed().publish(*PARTS)
    compact(maker.store)
    path = maker.folder / record_path(1)
    sound = path.read_bytes()
    for seed in range(300):
        path.write_bytes(spoilt(sound, seed))
        found = files_of(maker.store, maker.manifest.run_id)
        assert (found.merged, found.beside) == ((), PARTS)
    path.write_bytes(sound)
    assert files_of(maker.store, maker.manifest.run_id).beside == ()


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b'{"version": 2, "parts": "elsewhere"}'])
def test_a_record_that_is_none_or_of_another_version_leaves_the_parts(small_run: RunMaker, text: bytes) -> None:
    (small_run.folder / COMPACT).mkdir()
    (small_run.folder / record_path(1)).write_bytes(text)
    assert seen(small_run.folder) == seen_plainly(small_run.folder)
    assert compact(small_run.store).new
    assert set(copy_of(small_run.folder)) >= {"record-000002.json"}
    assert "record-000001.json" not in copy_of(small_run.folder)
    assert len(files(small_run)) == 1


def test_the_record_of_another_run_is_not_used(small_run: RunMaker, tmp_path: Path) -> None:
    other = RunMaker(tmp_path / "other", seed=7).complete()
    compact(other.store)
    (other.folder / COMPACT).rename(small_run.folder / COMPACT)
    assert files(small_run) == tuple(part.file for part in PARTS)
    (problem,) = verify(small_run.store).problems
    assert f"belongs to run {other.manifest.run_id}, not {small_run.manifest.run_id}" in problem


def test_a_copy_without_one_of_its_files_is_not_used(many: ManyImages) -> None:
    record = compact(many.store, SMALL).record
    (many.folder / merged_path(record.files[3].name)).unlink()
    assert files(many) == tuple(part.file for part in PARTS)
    assert seen(many.folder) == seen_plainly(many.folder)
    assert verify(many.store).problems[0].startswith(merged_path(record.files[3].name))


def test_a_part_that_is_gone_is_gone_for_readers_of_the_copy_too(small_run: RunMaker) -> None:
    compact(small_run.store)
    (small_run.folder / PARTS[1].file).unlink()
    assert seen(small_run.folder) == seen_plainly(small_run.folder)
    assert any(problem.startswith(record_path(1)) for problem in verify(small_run.store).merged)


def test_a_part_that_is_gone_is_missed_though_others_have_come(maker: RunMaker) -> None:
    maker.claimed().publish(*PARTS[:2])
    compact(maker.store)
    (maker.folder / PARTS[1].file).unlink()
    maker.publish(PARTS[2])
    assert seen(maker.folder) == seen_plainly(maker.folder)


def test_a_run_that_is_open_outlives_another_compaction(maker: RunMaker) -> None:
    maker.claimed().publish(*PARTS[:2])
    compact(maker.store)
    with open_run(maker.folder) as run:
        before = rows(run, "SELECT shard, image_key, method FROM parts ORDER BY ALL")
        maker.publish(PARTS[2])
        compact(maker.store)
        assert rows(run, "SELECT shard, image_key, method FROM parts ORDER BY ALL") == before
        assert run.table(["image_key"]).num_rows == run.arrow("SELECT * FROM explanations").num_rows


def test_a_copy_that_goes_away_while_a_run_is_opened_is_done_without(small_run: RunMaker) -> None:
    class Late(LocalStore):
        def dataset(self, names: tuple[str, ...]) -> ds.Dataset:  # type: ignore[override]
            if any(name.startswith(COMPACT) for name in names):
                drop(small_run.store)
            return super().dataset(names)

    from pipeline.query import Run

    compact(small_run.store)
    with Run(Late(small_run.folder)) as run:
        assert run.table().num_rows == 7


def test_a_damaged_copy_is_named_when_it_is_asked(small_run: RunMaker) -> None:
    (file,) = compact(small_run.store).record.files
    path = small_run.folder / merged_path(file.name)
    with open_run(small_run.folder) as run:
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DamagedRunError, match=f"{file.name} cannot be read .*; run `camatlas verify`"):
            run.arrow("SELECT * FROM explanations")


def test_eight_compactions_at_once_leave_one_copy(many: ManyImages) -> None:
    gate = threading.Barrier(8)

    def work(_: int) -> CompactionRecord:
        gate.wait()
        return compact(LocalStore(many.folder), SMALL).record

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert {record.parts_count for record in found} == {3}
    compact(many.store)
    names = {path.removeprefix(f"{COMPACT}/") for path in files(many)}
    assert set(copy_of(many.folder)) == names | {"record-000001.json"}
    assert seen(many.folder) == seen_plainly(many.folder)


@pytest.mark.parametrize("moment", ["first file", "last file", "record"])
def test_who_comes_second_removes_what_he_wrote(many: ManyImages, moment: str) -> None:
    """Another compaction runs from beginning to end while this one publishes something."""

    class Second(LocalStore):
        files = 0

        def publish(self, name: str, data: bytes) -> bool:
            self.files += name.endswith(".parquet")
            last = moment == "last file" and self.files == 7
            if (moment == "first file" and self.files == 1) or last or (moment == "record" and "record" in name):
                self.files = 100
                compact(many.store, SMALL)
            return super().publish(name, data)

    done = compact(Second(many.folder), SMALL)
    assert not done.new
    assert set(copy_of(many.folder)) == {"record-000001.json", *(file.name for file in done.record.files)}
    assert seen(many.folder) == seen_plainly(many.folder)


def test_what_the_first_one_removes_is_no_error_of_the_second(many: ManyImages) -> None:
    class Second(LocalStore):
        def publish(self, name: str, data: bytes) -> bool:
            if compact(many.store).new:
                raise StoreError("the temporary is gone")
            return super().publish(name, data)

    assert not compact(Second(many.folder)).new
    assert seen(many.folder) == seen_plainly(many.folder)


def test_a_name_that_was_taken_by_ourselves_is_ours(small_run: RunMaker) -> None:
    """Some network file systems do the work, lose the answer, try again and say that the name is there."""

    class Forgetful(LocalStore):
        def publish(self, name: str, data: bytes) -> bool:
            return super().publish(name, data) and "record" not in name

    assert compact(Forgetful(small_run.folder)).new
    assert len(files(small_run)) == 1


def test_a_store_in_which_others_are_always_first_is_told(small_run: RunMaker) -> None:
    class Haunted(LocalStore):
        def publish(self, name: str, data: bytes) -> bool:
            return "record" not in name and super().publish(name, data)

    with pytest.raises(StoreError, match="others were first 4 times"):
        compact(Haunted(small_run.folder))
    assert seen(small_run.folder) == seen_plainly(small_run.folder)


@pytest.mark.parametrize("damage", ["cut", "other run", "other columns"])
def test_what_cannot_be_merged_is_named_and_nothing_comes_to_count(
    small_run: RunMaker, tmp_path: Path, damage: str
) -> None:
    path = small_run.folder / PARTS[1].file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "other run":
        replace_part(small_run, PARTS[1], small_run.table(PARTS[1]), small_run.footer(PARTS[1], run_id="0123"))
    else:
        replace_part(small_run, PARTS[1], RunMaker(tmp_path / "other", metrics=("increase",)).table(PARTS[1]))
    with pytest.raises(DamagedRunError, match=f"{PARTS[1].file} cannot be merged .*; run `camatlas verify`"):
        compact(small_run.store)
    assert copy_of(small_run.folder) == {}


def test_without_a_finished_chunk_or_a_run_there_is_nothing_to_merge(maker: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        compact(LocalStore(tmp_path / "none"))
    with pytest.raises(ConfigError, match="holds no finished chunk yet"):
        compact(maker.claimed().store)


def test_a_run_with_a_copy_is_resumed(maker: RunMaker) -> None:
    maker.claimed().publish(PARTS[0])
    compact(maker.store)
    assert not claim(maker.store, maker.manifest)
    maker.work(maker.store)
    assert seen(maker.folder) == seen_plainly(maker.folder)
    assert verify(maker.store).problems == []


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """What is held whenever something is read or published stays a few times the limit, whatever the rows."""
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


def test_heavy_rows_make_smaller_row_groups(many: ManyImages, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(many.store, Limits(group_size=4_000))
    (name,) = files(many)
    metadata = pq.read_metadata(many.folder / name)
    assert metadata.num_row_groups > 5
    assert max(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)) < 8_000


def test_rows_that_do_not_come_out_are_not_published(small_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = compaction.Spill.tables
    monkeypatch.setattr(compaction.Spill, "tables", lambda spill: (table.slice(1) for table in tables(spill)))
    with pytest.raises(AssertionError, match="rows came out"):
        compact(small_run.store)
    assert files(small_run) == tuple(part.file for part in PARTS)


def test_values_survive_to_the_last_bit(many: ManyImages) -> None:
    compact(many.store, SMALL)
    by_key = [(name, "ascending") for name in SORTED_BY]
    whole = pa.concat_tables([many.table(part) for part in PARTS]).sort_by(by_key)
    assert pa.concat_tables(merged_tables(many)).equals(whole)
    assert pc.all(pc.is_valid(whole["map"])).as_py()
