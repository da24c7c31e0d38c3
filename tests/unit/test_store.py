"""The run folder: reading, listing and deleting, and the places where none can be."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from disk import failing

from pipeline.errors import ConfigError, StoreError
from pipeline.run_folder import part_names
from pipeline.store import Listed, LocalStore, open_store


def test_what_is_absent_is_not_found(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for absent in (store, LocalStore(tmp_path / "file")):
        with pytest.raises(FileNotFoundError):
            absent.read("a.bin")


def test_a_missing_folder_is_an_empty_one(store: LocalStore) -> None:
    assert store.names() == []
    assert store.names("_receipts") == []
    assert part_names(store) == []
    assert not store.folder.exists()


@pytest.mark.parametrize(
    ("function", "act"),
    [
        ("listdir", lambda store: store.names()),
        ("scandir", lambda store: store.listed()),
        ("open", lambda store: store.read("a.bin")),
        ("unlink", lambda store: store.delete("a.bin")),
    ],
)
def test_what_the_disk_refuses_is_told_in_a_sentence(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, function: str, act: Callable[[LocalStore], object]
) -> None:
    store.publish("a.bin", b"x")
    monkeypatch.setattr(os, function, failing(errno.EIO))
    with pytest.raises(StoreError, match=f"cannot (list|read|delete) {store.folder}.*: Input/output error"):
        act(store)


def test_a_listing_tells_size_and_time_of_files_and_of_nothing_else(store: LocalStore) -> None:
    assert store.listed() == []
    store.publish("b.bin", b"xyz")
    store.publish("a.bin", b"")
    store.publish("_receipts/a.json", b"{}")
    (store.folder / "link").symlink_to(store.folder / "a.bin")
    os.utime(store.folder / "b.bin", (7.5, 7.5))
    os.utime(store.folder / "a.bin", (8, 8))
    assert store.listed() == [Listed("a.bin", 0, 8), Listed("b.bin", 3, 7.5)]


def test_deleting_takes_one_file_and_does_not_miss_an_absent_one(store: LocalStore) -> None:
    store.publish("a.bin", b"x")
    store.publish("b.bin", b"x")
    store.delete("a.bin")
    store.delete("a.bin")
    assert store.names() == ["b.bin"]


def test_a_place_that_can_be_made_is_writable_and_stays_unmade(store: LocalStore) -> None:
    store.check_writable()
    assert not store.folder.exists()


@pytest.mark.parametrize("path", ["file", "file/run", "dangling", "dangling/run"])
def test_a_path_through_something_that_is_no_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is not a folder"):
        LocalStore(tmp_path / path).check_writable()
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ConfigError, match="may not be written to"):
        LocalStore(tmp_path / "run").check_writable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match="may not be written to"):
            LocalStore(tmp_path / "run").check_writable()
    finally:
        tmp_path.chmod(0o700)


def test_a_store_is_opened_by_path_or_file_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (str(tmp_path / "run"), f"file://{tmp_path}/run", "~/run", f"{tmp_path}/x/../run"):
        assert open_store(url).url == str(tmp_path / "run")


@pytest.mark.parametrize("url", ["ftp://host/run", "memory:///run", "http://host/run"])
def test_a_place_that_cannot_be_written_safely_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is in no store that is known"):
        open_store(url)
