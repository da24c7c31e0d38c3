"""The status of a run from its folder: running, dead, complete, empty, damaged, merged, and very large runs."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset
import pytest
from damage import FIRST, OTHER_SHARD, SECOND
from handmade import PARTS, RunMaker

from pipeline.errors import ConfigError, DamagedRunError
from pipeline.results import footers
from pipeline.results.status import Count, Failures, Status, status
from pipeline.storage.base import Listed
from pipeline.storage.compaction import compact
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import encode_part
from pipeline.storage.run_folder import MANIFEST, PartName
from schemas.manifest import RunManifest

BEGAN = 1_700_000_000.0


def at(run: RunMaker, part: PartName, seconds: float) -> None:
    """Set the publication time of a part, in seconds after the start."""
    os.utime(run.folder / part.file, (BEGAN + seconds,) * 2)


def owned(run: RunMaker) -> RunMaker:
    run.owned()
    os.utime(run.folder / MANIFEST, (BEGAN, BEGAN))
    return run


def status_after(run: RunMaker, after: float, patience: float | None = None) -> Status:
    return status(run.store, BEGAN + after, patience)


def test_a_complete_run_is_counted(small_run: RunMaker) -> None:
    for number, part in enumerate(PARTS):
        at(small_run, part, 10 * number)
    found = status_after(small_run, 1_000_000)
    assert found.state == "complete"
    assert (found.chunks_done, found.chunks_total) == (3, Count(3, True))
    assert (found.images_done, found.images_total) == (Count(5, True), Count(5, True))
    assert found.failures == Failures(Counter({"explain/nonfinite": 1, "decode/truncated": 1, "shard/tar": 1}), 0)
    assert (found.damaged, found.unseen_ends, found.seconds_left, found.stragglers) == ({}, 0, None, [])
    assert found.throughput.overall().a_second == 3 / 20


def test_status_changes_nothing(small_run: RunMaker) -> None:
    before = {path: path.stat().st_mtime_ns for path in small_run.folder.rglob("*")}
    status_after(small_run, 0)
    assert {path: path.stat().st_mtime_ns for path in small_run.folder.rglob("*")} == before


def test_a_run_without_a_part_is_starting_and_then_quiet(maker: RunMaker) -> None:
    owned(maker)
    found = status_after(maker, 60)
    assert (found.state, found.now - found.last_sign) == ("starting", 60)
    assert (found.chunks_done, found.chunks_total, found.images_total) == (0, Count(None, False), Count(None, False))
    assert status_after(maker, 2000).state == "quiet"


def test_totals_of_a_running_run_are_estimated_from_shard_sizes(tmp_path: Path) -> None:
    run = owned(RunMaker(tmp_path / "run", shards=("a.tar", "b.tar", "c.tar", "d.tar")))
    run.publish(*PARTS[:2])
    at(run, FIRST, 10)
    at(run, SECOND, 20)
    found = status_after(run, 30)
    assert (found.state, sorted(found.finished)) == ("going", [0])
    assert found.images_total == Count(12, False), "one shard of four has three images"
    assert found.chunks_total == Count(8, False)
    assert found.throughput.recent(found.now).a_second == 1 / 20
    assert found.seconds_left == pytest.approx(9 * 20)


def test_image_counts_in_the_manifest_are_used(maker: RunMaker) -> None:
    take_ownership(maker.store, maker.manifest.model_copy(update={"images": (3, None)}))
    maker.publish(FIRST)
    found = status_after(maker, 0)
    assert (found.images_total, found.chunks_total) == (Count(6, False), Count(4, False))
    maker.publish(OTHER_SHARD)
    found = status_after(maker, 0)
    assert (found.images_total, found.chunks_total) == (Count(5, True), Count(3, True))


def test_a_run_without_recent_parts_is_quiet_and_has_no_estimate(maker: RunMaker) -> None:
    owned(maker).publish(FIRST, SECOND)
    at(maker, FIRST, 10)
    at(maker, SECOND, 20)
    found = status_after(maker, 4000)
    assert (found.state, found.seconds_left) == ("quiet", None)


def test_a_temporary_file_is_a_sign_of_life(maker: RunMaker) -> None:
    owned(maker)
    temporary = maker.folder / f".{FIRST.file}.{'0' * 32}.tmp"
    temporary.write_bytes(b"half")
    os.utime(temporary, (BEGAN + 5000,) * 2)
    foreign = maker.folder / "notes.txt"
    foreign.write_bytes(b"mine")
    found = status_after(maker, 5100)
    assert (found.state, found.last_sign, found.chunks_done) == ("starting", BEGAN + 5000, 0)


def test_a_shard_with_a_missing_chunk_is_not_finished(small_run: RunMaker) -> None:
    (small_run.folder / FIRST.file).unlink()
    found = status_after(small_run, 0)
    assert sorted(found.finished) == [1]
    assert found.state != "complete"


def test_a_shard_whose_last_part_was_not_scanned_is_not_finished(small_run: RunMaker) -> None:
    found = status_after(small_run, 0, patience=0)
    assert (found.finished, found.unseen_ends, found.failures) == (frozenset(), 2, Failures(Counter(), 3))
    assert found.images_done == Count(6, False), "an unscanned part counts as a full chunk"


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.file)
@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_damaged_part_is_named_and_other_parts_are_still_scanned(
    small_run: RunMaker, part: PartName, kept: float
) -> None:
    path = small_run.folder / part.file
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    found = status_after(small_run, 0)
    assert list(found.damaged) == [part.file]
    assert len(found.footers) == 2
    assert (found.chunks_done, found.images_done.exact) == (3, False)
    assert sum(found.failures.codes.values()) == {FIRST: 3, SECOND: 2, OTHER_SHARD: 1}[part]
    assert (found.state == "complete") is (part == FIRST), "a shard is finished by its last part"


def test_a_part_copied_over_another_is_reported_as_damage(small_run: RunMaker) -> None:
    shutil.copy(small_run.folder / PARTS[0].file, small_run.folder / SECOND.file)
    assert status_after(small_run, 60).damaged == {SECOND.file: "holds shard 0 chunk 0, which does not match its name"}


def test_a_missing_part_is_reported(small_run: RunMaker) -> None:
    (small_run.folder / SECOND.file).unlink()
    assert status_after(small_run, 60).damaged == {SECOND.file: "it is missing, but its receipt exists"}


def test_a_part_of_another_run_is_reported_as_damage(small_run: RunMaker) -> None:
    data = encode_part(small_run.table(SECOND), small_run.footer(SECOND, run_id="other"))
    (small_run.folder / SECOND.file).write_bytes(data)
    found = status_after(small_run, 0)
    assert found.damaged == {SECOND.file: f"belongs to run other, not {small_run.manifest.run_id}"}
    assert sorted(found.finished) == [1]


def test_parts_of_unknown_shards_are_ignored(small_run: RunMaker) -> None:
    (small_run.folder / PartName(7, 0).file).write_bytes(b"")
    found = status_after(small_run, 0)
    assert (found.state, found.chunks_done, found.damaged) == ("complete", 3, {})


def test_a_part_deleted_during_the_scan_is_skipped(small_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = LocalStore.listed

    def then_gone(store: LocalStore) -> list[Listed]:
        files = listed(store)
        (store.folder / SECOND.file).unlink(missing_ok=True)
        return files

    monkeypatch.setattr(LocalStore, "listed", then_gone)
    found = status_after(small_run, 0)
    assert (found.damaged, len(found.footers), found.state == "complete") == ({}, 2, False)


def test_compaction_does_not_change_the_status(small_run: RunMaker) -> None:
    before = status_after(small_run, 0)
    compact(small_run.store)
    assert status_after(small_run, 0) == before


def test_failures_come_from_the_merged_copy_if_parts_were_skipped(
    small_run: RunMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = status_after(small_run, 0).failures
    scans: list[Sequence[str]] = []
    scan = footers.scan

    def impatient(store: LocalStore, names: Sequence[str], seconds: float | None = None) -> footers.ScanResult:
        scans.append(names)
        return scan(store, names, 0 if len(scans) % 2 else None)

    monkeypatch.setattr("pipeline.results.status.scan", impatient)
    assert status_after(small_run, 0).failures.skipped == 3
    compact(small_run.store)
    scans.clear()
    assert status_after(small_run, 0).failures == exact
    assert [name.startswith("_compact/") for name in scans[1]] == [True]


def test_no_run_and_a_damaged_manifest_are_refused(small_run: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        status(LocalStore(tmp_path / "nowhere"), 0)
    (small_run.folder / MANIFEST).write_bytes(b"{}")
    with pytest.raises(DamagedRunError):
        status_after(small_run, 0)


@dataclass
class Listing:
    """A store with a manifest and a long listing, whose parts cannot be read."""

    manifest: RunManifest
    files: list[Listed]
    url: str = "s3://atlas/run"

    def read(self, name: str) -> bytes:
        assert name == MANIFEST
        return self.manifest.to_json()

    def listed(self) -> list[Listed]:
        return self.files

    def names(self, folder: str = "") -> list[str]:
        return []

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        raise AssertionError("no part may be read without time")


@pytest.mark.slow
def test_the_status_of_a_hundred_thousand_parts_comes_from_the_listing() -> None:
    maker = RunMaker(Path("unused"), shards=[f"{number}.tar" for number in range(10_000)])
    files = [Listed(PartName(n // 10, n % 10).file, 1000, BEGAN + n / 100) for n in range(100_000)]
    found = status(Listing(maker.manifest, files), BEGAN + 1010, patience=0)  # type: ignore[arg-type]
    assert (found.state, found.chunks_done, found.images_done.number) == ("going", 100_000, 200_000)
    assert (found.unseen_ends, found.failures.skipped) == (10_000, 100_000)
    assert found.throughput.recent(found.now).a_second == pytest.approx(200 * 290 / 300, rel=0.01)
    assert found.stragglers == []
