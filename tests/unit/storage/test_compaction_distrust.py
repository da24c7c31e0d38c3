"""Compaction: invalid merged copies are not used, and damaged parts are not merged."""

import random
from pathlib import Path

import pytest
from damage import replace_part
from handmade import PARTS, RunMaker
from merging import SMALL, ManyImages, copy_of, files, seen, seen_plainly

from pipeline.errors import DamagedRunError
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage import compaction
from pipeline.storage.compaction import compact
from pipeline.storage.merged import COMPACT, files_of, merged_path, record_path
from pipeline.storage.run_folder import PartName


def flip_one_bit(text: bytes, seed: int) -> bytes:
    """Return the text with one random bit flipped."""
    chance = random.Random(seed)
    data = bytearray(text)
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def test_a_record_with_any_bit_flipped_is_not_trusted(maker: RunMaker) -> None:
    """A damaged record could omit a part, whose rows would then be read twice."""
    maker.owned().publish(*PARTS)
    compact(maker.store)
    path = maker.folder / record_path(1)
    intact = path.read_bytes()
    for seed in range(300):
        path.write_bytes(flip_one_bit(intact, seed))
        found = files_of(maker.store, maker.manifest.run_id)
        assert (found.merged, found.unmerged) == ((), PARTS)
    path.write_bytes(intact)
    assert files_of(maker.store, maker.manifest.run_id).unmerged == ()


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b'{"version": 2, "parts": "elsewhere"}'])
def test_an_invalid_record_or_one_of_another_version_is_ignored(small_run: RunMaker, text: bytes) -> None:
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


def forget(run: RunMaker, part: PartName) -> None:
    """Delete a part and its receipt, so that only the merged copy still has its rows."""
    (run.folder / part.file).unlink()
    (run.folder / part.receipt).unlink()


def test_rows_of_a_deleted_part_are_not_read_from_the_copy(small_run: RunMaker) -> None:
    compact(small_run.store)
    forget(small_run, PARTS[1])
    assert seen(small_run.folder) == seen_plainly(small_run.folder)
    assert any(problem.startswith(record_path(1)) for problem in verify(small_run.store).merged)


def test_rows_of_a_deleted_part_are_not_read_after_parts_were_added(maker: RunMaker) -> None:
    maker.owned().publish(*PARTS[:2])
    compact(maker.store)
    forget(maker, PARTS[1])
    maker.publish(PARTS[2])
    assert seen(maker.folder) == seen_plainly(maker.folder)


def test_a_damaged_copy_is_named_when_it_is_queried(small_run: RunMaker) -> None:
    (file,) = compact(small_run.store).record.files
    path = small_run.folder / merged_path(file.name)
    with open_run(small_run.folder) as run:
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DamagedRunError, match=f"{file.name} cannot be read .*; run `camatlas verify`"):
            run.arrow("SELECT * FROM explanations")


@pytest.mark.parametrize("damage", ["cut", "other run", "other columns"])
def test_a_part_that_cannot_be_merged_is_named_and_no_copy_is_published(
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


def test_a_copy_with_lost_rows_is_not_published(small_run: RunMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = compaction.Spill.tables
    monkeypatch.setattr(compaction.Spill, "tables", lambda spill: (table.slice(1) for table in tables(spill)))
    with pytest.raises(AssertionError, match="as many rows as the parts"):
        compact(small_run.store)
    assert files(small_run) == tuple(part.file for part in PARTS)
