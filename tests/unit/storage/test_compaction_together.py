"""Concurrent compactions and readers: one copy remains, and no process fails because of another."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow.dataset as ds
import pytest
from handmade import PARTS, RunMaker
from merging import SMALL, ManyImages, copy_of, files, seen, seen_plainly
from queries import rows

from pipeline.errors import StoreError
from pipeline.results.query import open_run
from pipeline.storage.compaction import compact, drop
from pipeline.storage.local_store import LocalStore
from pipeline.storage.merged import COMPACT
from schemas.compaction import CompactionRecord


def test_an_open_run_survives_another_compaction(maker: RunMaker) -> None:
    maker.owned().publish(*PARTS[:2])
    compact(maker.store)
    with open_run(maker.folder) as run:
        before = rows(run, "SELECT shard, image_key, method FROM parts ORDER BY ALL")
        maker.publish(PARTS[2])
        compact(maker.store)
        assert rows(run, "SELECT shard, image_key, method FROM parts ORDER BY ALL") == before
        assert run.table(["image_key"]).num_rows == run.arrow("SELECT * FROM explanations").num_rows


def test_a_run_opens_even_if_its_copy_is_deleted_meanwhile(small_run: RunMaker) -> None:
    class Late(LocalStore):
        def dataset(self, names: tuple[str, ...]) -> ds.Dataset:  # type: ignore[override]
            if any(name.startswith(COMPACT) for name in names):
                drop(small_run.store)
            return super().dataset(names)

    from pipeline.results.query import Run

    compact(small_run.store)
    with Run(Late(small_run.folder)) as run:
        assert run.table().num_rows == 7


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
def test_the_loser_of_a_race_removes_its_files(many: ManyImages, moment: str) -> None:
    """Another compaction runs completely while this one publishes a file or its record."""

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


def test_the_loser_of_a_race_ignores_errors_caused_by_the_winner(many: ManyImages) -> None:
    class Second(LocalStore):
        def publish(self, name: str, data: bytes) -> bool:
            if compact(many.store).new:
                raise StoreError("the temporary file is gone")
            return super().publish(name, data)

    assert not compact(Second(many.folder)).new
    assert seen(many.folder) == seen_plainly(many.folder)


def test_a_record_published_by_a_retried_write_is_recognised(small_run: RunMaker) -> None:
    """Some network file systems link the file, lose the response, retry, and report that the name is taken."""

    class Forgetful(LocalStore):
        def publish(self, name: str, data: bytes) -> bool:
            return super().publish(name, data) and "record" not in name

    assert compact(Forgetful(small_run.folder)).new
    assert len(files(small_run)) == 1


def test_a_store_that_always_reports_the_name_as_taken_is_an_error(small_run: RunMaker) -> None:
    class Haunted(LocalStore):
        def publish(self, name: str, data: bytes) -> bool:
            return "record" not in name and super().publish(name, data)

    with pytest.raises(StoreError, match="took the next number 4 times"):
        compact(Haunted(small_run.folder))
    assert seen(small_run.folder) == seen_plainly(small_run.folder)
