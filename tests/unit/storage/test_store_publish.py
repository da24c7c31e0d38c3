"""Publishing in a run folder: atomic, never overwriting, and durable."""

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from disk import everything_in, failing

from pipeline.errors import StoreError
from pipeline.storage.local_store import LocalStore
from pipeline.storage.parts import sweep


def is_folder(handle: int) -> bool:
    return stat.S_ISDIR(os.fstat(handle).st_mode)


def test_a_published_file_can_be_read_and_listed(store: LocalStore) -> None:
    assert store.publish("a.bin", b"first")
    assert store.read("a.bin") == b"first"
    assert store.names() == ["a.bin"]


def test_publishing_again_changes_nothing(store: LocalStore) -> None:
    assert store.publish("a.bin", b"first")
    assert not store.publish("a.bin", b"second")
    assert store.read("a.bin") == b"first"
    assert store.names() == ["a.bin"]


def test_replacing_is_atomic_and_leaves_nothing_behind(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.publish("a.bin", b"first")
    store.replace("a.bin", b"second")
    assert (store.read("a.bin"), store.names()) == (b"second", ["a.bin"])
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(StoreError, match=r"a\.bin"):
        store.replace("a.bin", b"third")
    assert (store.read("a.bin"), store.names()) == (b"second", ["a.bin"])


def test_of_sixteen_writers_at_once_exactly_one_wins(store: LocalStore) -> None:
    gate = threading.Barrier(16)

    def publish(number: int) -> bool:
        gate.wait()
        return store.publish("a.bin", bytes([number]) * 10_000)

    for _ in range(5):
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(publish, range(16)))
        assert won.count(True) == 1
        assert store.read("a.bin") == bytes([won.index(True)]) * 10_000
        assert store.names() == ["a.bin"]
        store.delete("a.bin")


def test_folders_are_created_as_needed(store: LocalStore) -> None:
    assert store.publish("_receipts/a.json", b"{}")
    assert everything_in(store.folder) == ["_receipts", "_receipts/a.json"]


@pytest.mark.parametrize("function", ["link", "fsync"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EINTR, errno.EROFS])
def test_a_failed_publish_leaves_nothing_and_names_path_and_size(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, function: str, code: int
) -> None:
    monkeypatch.setattr(os, function, failing(code))
    with pytest.raises(StoreError) as caught:
        store.publish("a.bin", b"x" * 1234)
    assert everything_in(store.folder) == []
    assert f"cannot publish {store.folder}/a.bin (1234 bytes): {os.strerror(code)}" in str(caught.value)


def test_if_the_folder_cannot_be_synced_the_file_is_complete_and_an_error_is_raised(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_for_folders(handle: int) -> None:
        if is_folder(handle):
            raise OSError(errno.EIO, "disk")

    store.folder.mkdir()
    monkeypatch.setattr(os, "fsync", fail_for_folders)
    with pytest.raises(StoreError, match="The file is either complete or absent"):
        store.publish("a.bin", b"whole")
    assert everything_in(store.folder) == ["a.bin"]
    assert store.read("a.bin") == b"whole"
    assert not store.publish("a.bin", b"again")


def test_bytes_are_synced_before_the_link_and_the_folder_before_success(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.folder.mkdir()
    calls: list[tuple[str, object]] = []
    link, fsync = os.link, os.fsync

    def recording_fsync(handle: int) -> None:
        calls.append(("fsync folder", store.names()) if is_folder(handle) else ("fsync file", os.fstat(handle).st_size))
        fsync(handle)

    def recording_link(source: Path, target: Path) -> None:
        calls.append(("link", target.name))
        link(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "link", recording_link)
    store.publish("a.bin", b"12345")
    assert [name for name, _ in calls] == ["fsync file", "link", "fsync folder"]
    assert calls[0] == ("fsync file", 5)
    assert calls[1] == ("link", "a.bin")
    assert "a.bin" in calls[2][1]  # type: ignore[operator]


def test_a_temporary_is_hidden_and_in_the_folder_of_its_target(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def keep(source: Path, target: Path) -> None:
        seen.extend((source, target))

    monkeypatch.setattr(os, "link", keep)
    store.publish("part-00000-000.parquet", b"x")
    temporary, target = seen
    assert temporary.parent == target.parent
    assert temporary.name.startswith(".part-00000-000.parquet.")
    assert temporary.suffix == ".tmp"


def test_a_writer_whose_temporary_file_was_swept_has_lost_the_race(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver published the same part, finished, and swept; this driver must not fail because of that."""
    link = os.link

    def overtaken(source: Path, target: Path) -> None:
        target.write_bytes(b"theirs")
        sweep(store)
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    assert not store.publish("a.bin", b"ours")
    assert store.read("a.bin") == b"theirs"


def test_a_temporary_file_that_disappears_without_a_winner_is_an_error(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def robbed(source: Path, target: Path) -> None:
        source.unlink()
        link(source, target)

    monkeypatch.setattr(os, "link", robbed)
    with pytest.raises(StoreError, match="No such file"):
        store.publish("a.bin", b"ours")


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_under_the_name_is_neither_followed_nor_replaced(
    store: LocalStore, tmp_path: Path, exists: bool
) -> None:
    outside = tmp_path / "outside"
    if exists:
        outside.write_bytes(b"not ours")
    store.folder.mkdir()
    (store.folder / "a.bin").symlink_to(outside)
    assert not store.publish("a.bin", b"ours")
    assert (store.folder / "a.bin").is_symlink()
    assert (outside.read_bytes() if exists else b"") == (b"not ours" if exists else b"")
    assert outside.exists() == exists
    with pytest.raises(StoreError, match="symbolic links"):
        store.read("a.bin")


def test_a_new_folder_is_synced_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def recording_fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    LocalStore(tmp_path / "deep" / "run").publish("a.bin", b"1")
    assert synced[:2] == [str(tmp_path), str(tmp_path / "deep")]
    assert synced[-1] == str(tmp_path / "deep" / "run")
