"""Folders of images: which files are images, and what happens to those that cannot be read."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.folder_files import SIDE_FILES, find_files
from pipeline.data.sources.listing import list_shards

Put = Callable[..., Path]


def read(folder: Path) -> list[Item]:
    return [item for shard in list_shards(str(folder)) for item in read_shard(shard, Reading())]


def test_images_in_sub_folders_are_found_in_order(put: Put) -> None:
    folder = put("f", "b.png", "a/2.jpg", "a/x/1.JPG", "c.webp")
    assert find_files(folder).images == ["a/2.jpg", "a/x/1.JPG", "b.png", "c.webp"]


def test_hidden_files_and_folders_are_left_out(put: Put) -> None:
    assert find_files(put("f", "a.jpg", ".b.jpg", ".git/c.jpg", "d/.e/f.jpg", "d/._g.jpg")).images == ["a.jpg"]


@pytest.mark.parametrize(
    "name", ["labels.csv", "x.JSON", "x.xml", "notes.txt", *(f"d/x{suffix}" for suffix in SIDE_FILES)]
)
def test_side_files_are_left_out(put: Put, name: str) -> None:
    assert find_files(put("f", "a.jpg", name)).images == ["a.jpg"]


@pytest.mark.parametrize("name", ["a", "b.unknown", "c.jpg.bak", "d."])
def test_anything_else_is_taken_for_an_image(put: Put, name: str) -> None:
    assert find_files(put("f", name)).images == [name]


def test_the_key_is_the_path_within_the_folder(put: Put) -> None:
    folder = put("f", "a/1.jpg", "a/2.v1.jpg")
    assert read(folder) == [
        Sample("a/1.jpg", "f[0]", b"a/1.jpg", None, None),
        Sample("a/2.v1.jpg", "f[0]", b"a/2.v1.jpg", None, None),
    ]


def test_only_a_missing_file_fails(put: Put) -> None:
    folder = put("f", "a.jpg", "b.jpg", "c.jpg")
    (shard,) = list_shards(str(folder))
    (folder / "b.jpg").unlink()
    items = list(read_shard(shard, Reading()))
    assert [(item.key, type(item)) for item in items] == [("a.jpg", Sample), ("b.jpg", Failure), ("c.jpg", Sample)]
    assert [item.code for item in items if isinstance(item, Failure)] == ["unreadable"]


def test_a_disk_failure_on_one_file_fails_that_file(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put("f", "a.jpg", "b.jpg")
    original = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "a.jpg":
            raise OSError(5, os.strerror(5))
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    first, second = read(folder)
    assert (first.key, isinstance(first, Failure) and first.detail) == ("a.jpg", "Input/output error")
    assert isinstance(second, Sample)


@pytest.mark.parametrize("name", ["a\0b.jpg", "x" * 5000, ".."])
def test_only_an_invalid_name_fails(put: Put, name: str) -> None:
    folder = put("f", "a.jpg")
    shard = Shard(0, "f", "folder", str(folder), 0, "", members=(name, "a.jpg"))
    first, second = read_shard(shard, Reading())
    assert isinstance(first, Failure)
    assert first.code == "unreadable"
    assert isinstance(second, Sample)


def test_only_a_file_above_the_size_limit_fails(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.sources.folder.MAX_MEMBER_BYTES", 6)
    folder = put("f", "aa.jpg", "bbb.jpg")
    first, second = read(folder)
    assert isinstance(first, Sample)
    assert isinstance(second, Failure)
    assert (second.key, second.code) == ("bbb.jpg", "too_large")


def test_names_that_are_not_utf8_become_escapes(put: Put) -> None:
    folder = put("f", "caf\udce9.jpg", "cat\udcff/1.jpg")
    items = read(folder)
    assert [item.key for item in items] == ["caf\\xe9.jpg", "cat\\xff/1.jpg"]
    assert [item.image for item in items if isinstance(item, Sample)] == [b"caf\xe9.jpg", b"cat\xff/1.jpg"]


def test_a_folder_name_that_is_not_utf8_gives_a_valid_shard_name(put: Put) -> None:
    (item,) = read(put("f\udcff", "a.jpg"))
    assert item.shard == "f\\xff[0]"
