"""Ownership of run folders: folders with another run, other files, or a damaged manifest are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from disk import HEX
from handmade import PARTS, RunMaker

from pipeline.errors import ConfigError, DamagedRunError, StoreError
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore
from pipeline.storage.ownership import check_ownership, take_ownership
from pipeline.storage.parts import publish_part
from pipeline.storage.run_folder import MANIFEST, read_manifest


def test_ownership_of_an_empty_folder_is_taken_once(maker: RunMaker) -> None:
    assert take_ownership(maker.store, maker.manifest)
    assert read_manifest(maker.store).run_id == maker.manifest.run_id
    assert not take_ownership(maker.store, maker.manifest)
    assert maker.store.names() == [MANIFEST]


def test_a_resumed_run_keeps_the_manifest_that_it_was_started_with(maker: RunMaker) -> None:
    take_ownership(maker.store, maker.manifest)
    before = maker.store.read(MANIFEST)
    later = maker.manifest.model_copy(update={"started_at": "2030-01-01", "locations": ("/moved", "/too")})
    assert not take_ownership(maker.store, later)
    assert maker.store.read(MANIFEST) == before


def test_leftover_temporary_files_are_ignored(maker: RunMaker) -> None:
    maker.folder.mkdir()
    (maker.folder / f".{MANIFEST}.{HEX}.tmp").write_bytes(b"half")
    assert take_ownership(maker.store, maker.manifest)


@pytest.mark.parametrize("foreign", ["notes.txt", "_audit", ".hidden", ".x.tmp", "_receipts/a.json"])
def test_a_folder_with_other_files_is_refused_and_left_alone(maker: RunMaker, foreign: str) -> None:
    path = maker.folder / foreign
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=f"not empty and holds no run .found '{foreign.split('/')[0]}'"):
        take_ownership(maker.store, maker.manifest)
    assert path.read_bytes() == b"mine"
    assert not (maker.folder / MANIFEST).exists()


def test_a_folder_with_another_run_is_refused_and_the_differences_are_named(maker: RunMaker) -> None:
    take_ownership(maker.store, maker.manifest)
    before = maker.store.read(MANIFEST)
    other = RunMaker(maker.folder, seed=7, methods=("iscam",)).manifest
    for refuse in (check_ownership, take_ownership):
        with pytest.raises(
            ConfigError, match=rf"another run \({maker.manifest.run_id}\); it differs in: methods, seed "
        ):
            refuse(maker.store, other)
    assert maker.store.read(MANIFEST) == before


def test_of_two_runs_that_take_one_folder_at_the_same_time_one_is_refused(maker: RunMaker) -> None:
    """Both listed the folder while it was still empty."""

    class Early(LocalStore):
        calls = 0

        def names(self, folder: str = "") -> list[str]:
            self.calls += 1
            return [] if self.calls == 1 else super().names(folder)

    take_ownership(maker.store, maker.manifest)
    with pytest.raises(ConfigError, match="another run"):
        take_ownership(Early(maker.folder), RunMaker(maker.folder, seed=7).manifest)
    assert not take_ownership(Early(maker.folder), maker.manifest)


def test_a_folder_without_manifest_is_not_a_run(maker: RunMaker, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (maker.store, LocalStore(tmp_path), LocalStore(tmp_path / "file")):
        with pytest.raises(ConfigError, match=r"is not a run folder: it has no run\.json"):
            read_manifest(place)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_truncated_manifest_is_damage(small_run: RunMaker, size: int) -> None:
    path = small_run.folder / MANIFEST
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedRunError, match=r"run\.json is damaged"):
        read_manifest(small_run.store)


def test_an_edited_manifest_is_damage(small_run: RunMaker) -> None:
    path = small_run.folder / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    with pytest.raises(DamagedRunError, match="does not belong to this identity"):
        read_manifest(small_run.store)
    with pytest.raises(DamagedRunError):
        take_ownership(small_run.store, small_run.manifest)


def test_a_lost_manifest_is_written_again_for_the_same_run(small_run: RunMaker) -> None:
    before = small_run.store.read(MANIFEST)
    (small_run.folder / MANIFEST).unlink()
    (small_run.folder / "_audit").mkdir()
    check_ownership(small_run.store, small_run.manifest)
    assert not (small_run.folder / MANIFEST).exists(), "check_ownership writes nothing"
    assert not take_ownership(small_run.store, small_run.manifest), "the run is resumed, not new"
    assert small_run.store.read(MANIFEST) == before
    assert verify(small_run.store).problems == []


def test_parts_of_another_run_without_manifest_are_refused(small_run: RunMaker) -> None:
    (small_run.folder / MANIFEST).unlink()
    other = RunMaker(small_run.folder, seed=7).manifest
    with pytest.raises(
        ConfigError, match=rf"no run\.json and holds parts of another run \({small_run.manifest.run_id}"
    ):
        take_ownership(small_run.store, other)
    publish_part(small_run.store, small_run.table(PARTS[0]), replace(small_run.footer(PARTS[0], other.run_id), shard=2))
    with pytest.raises(ConfigError, match=f"parts of another run .{other.run_id}"):
        take_ownership(small_run.store, small_run.manifest)
    assert not (small_run.folder / MANIFEST).exists()


@pytest.mark.parametrize("name", ["notes.txt", "copy.parquet"])
def test_parts_without_manifest_but_with_foreign_files_are_refused(small_run: RunMaker, name: str) -> None:
    (small_run.folder / MANIFEST).unlink()
    (small_run.folder / name).write_bytes(b"mine")
    with pytest.raises(ConfigError, match=f"holds no run .found '{name}'"):
        take_ownership(small_run.store, small_run.manifest)


def test_a_damaged_part_without_manifest_is_named(small_run: RunMaker) -> None:
    (small_run.folder / MANIFEST).unlink()
    (small_run.folder / PARTS[1].file).write_bytes(b"mine")
    with pytest.raises(DamagedRunError, match=rf"{PARTS[1].file} is damaged"):
        take_ownership(small_run.store, small_run.manifest)


def test_a_manifest_that_cannot_be_read_is_a_store_error(maker: RunMaker) -> None:
    (maker.folder / MANIFEST).mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot read .*run\.json: Is a directory"):
        read_manifest(maker.store)
