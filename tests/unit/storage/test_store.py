"""Local stores: reading, listing and deleting files, and folders that cannot hold a run."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disk import everything_in, failing

from pipeline.errors import ConfigError, StoreError
from pipeline.storage.base import Listed
from pipeline.storage.local_store import LocalStore
from pipeline.storage.run_folder import part_names
from pipeline.storage.store import open_store


def test_reading_an_absent_file_raises_file_not_found(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for absent in (store, LocalStore(tmp_path / "file")):
        with pytest.raises(FileNotFoundError):
            absent.read("a.bin")


def test_an_absent_folder_is_listed_as_empty(store: LocalStore) -> None:
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
def test_disk_errors_become_store_errors(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, function: str, act: Callable[[LocalStore], object]
) -> None:
    store.publish("a.bin", b"x")
    monkeypatch.setattr(os, function, failing(errno.EIO))
    with pytest.raises(StoreError, match=f"cannot (list|read|delete) {store.folder}.*: Input/output error"):
        act(store)


def test_a_listing_has_size_and_time_of_files_only(store: LocalStore) -> None:
    assert store.listed() == []
    store.publish("b.bin", b"xyz")
    store.publish("a.bin", b"")
    store.publish("_receipts/a.json", b"{}")
    (store.folder / "link").symlink_to(store.folder / "a.bin")
    os.utime(store.folder / "b.bin", (7.5, 7.5))
    os.utime(store.folder / "a.bin", (8, 8))
    assert store.listed() == [Listed("a.bin", 0, 8), Listed("b.bin", 3, 7.5)]


def test_deleting_removes_one_file_and_ignores_an_absent_one(store: LocalStore) -> None:
    store.publish("a.bin", b"x")
    store.publish("b.bin", b"x")
    store.delete("a.bin")
    store.delete("a.bin")
    assert store.names() == ["b.bin"]


def test_a_folder_that_can_be_created_is_writable_and_is_not_created(store: LocalStore) -> None:
    store.check_writable()
    assert not store.folder.exists()


@pytest.mark.parametrize("path", ["file", "file/run", "dangling", "dangling/run"])
def test_a_path_through_a_file_or_dangling_link_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="is not a folder"):
        LocalStore(tmp_path / path).check_writable()
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ConfigError, match="is not writable"):
        LocalStore(tmp_path / "run").check_writable()


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    """Checked in a separate process, because root must drop its privilege to write anywhere."""
    code = "import sys; from pipeline.storage.local_store import LocalStore; LocalStore(sys.argv[1]).check_writable()"
    without_rights = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    tmp_path.chmod(0o500)
    try:
        command = [*without_rights, sys.executable, "-c", code, str(tmp_path / "run")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        tmp_path.chmod(0o700)
    assert ended.returncode == 1
    assert "ConfigError" in ended.stderr
    assert "is not writable" in ended.stderr


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A file system mounted read-only, with a folder on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a read-only file system is not permitted here")
    try:
        (folder / "there").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("path", ["", "there", "there/run", "run"])
def test_a_read_only_file_system_is_refused_even_for_root(read_only: Path, path: str) -> None:
    store = LocalStore(read_only / path)
    with pytest.raises(ConfigError, match=r"output\.path: '.*disk.*' is not writable"):
        store.check_writable()
    with pytest.raises(StoreError, match="Read-only file system"):
        store.publish("run.json", b"{}")


@pytest.fixture(params=["_receipts", "_compact", "_sanity", "_audit"])
def linked(request: pytest.FixtureRequest, store: LocalStore, tmp_path: Path) -> str:
    """A run folder with a subfolder that is a link to a foreign folder with one file."""
    name = str(request.param)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "theirs.json").write_bytes(b"theirs")
    store.folder.mkdir(exist_ok=True)
    (store.folder / name).symlink_to(tmp_path / "elsewhere")
    return name


def test_a_folder_of_a_run_that_is_a_link_is_refused_before_any_work(store: LocalStore, linked: str) -> None:
    with pytest.raises(ConfigError, match=f"'{store.folder}/{linked}' is a link; links .* are not followed"):
        store.check_writable()


@pytest.mark.parametrize(
    ("verb", "act"),
    [
        ("publish", lambda store, name: store.publish(f"{name}/ours.json", b"ours")),
        ("read", lambda store, name: store.read(f"{name}/theirs.json")),
        ("list", lambda store, name: store.names(name)),
        ("delete", lambda store, name: store.delete(f"{name}/theirs.json")),
    ],
)
def test_nothing_outside_a_run_folder_is_touched_through_a_link(
    store: LocalStore, tmp_path: Path, linked: str, verb: str, act: Callable[[LocalStore, str], object]
) -> None:
    with pytest.raises(StoreError, match=f"cannot {verb} {store.folder}/{linked}.*is a link"):
        act(store, linked)
    assert everything_in(tmp_path / "elsewhere") == ["theirs.json"]
    assert (tmp_path / "elsewhere" / "theirs.json").read_bytes() == b"theirs"


def test_a_link_to_the_run_folder_itself_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    store = LocalStore(tmp_path / "run")
    store.check_writable()
    assert store.publish("_receipts/a.json", b"{}")
    assert everything_in(tmp_path / "disk") == ["_receipts", "_receipts/a.json"]
    assert store.read("_receipts/a.json") == b"{}"


def test_a_store_is_opened_by_path_or_file_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (str(tmp_path / "run"), f"file://{tmp_path}/run", "~/run", f"{tmp_path}/x/../run"):
        assert open_store(url).url == str(tmp_path / "run")


@pytest.mark.parametrize("url", ["ftp://host/run", "memory:///run", "http://host/run"])
def test_a_url_with_an_unsupported_scheme_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="has an unsupported scheme"):
        open_store(url)
