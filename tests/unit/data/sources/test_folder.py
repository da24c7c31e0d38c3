"""Folders of images: which files are images, and where labels come from."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.folder import class_folders, folder_annotations
from pipeline.data.sources.folder_files import SIDE_FILES, list_images
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write files into a folder of this name; the content of each file is its path."""

    def put(folder: str, *names: str) -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.fsencode(name))
        return tmp_path / folder

    return put


def read(*folders: Path, classes: ClassTable | None = None) -> list[Item]:
    """Read folders as a run does, with the annotations next to the images."""
    shards = list_shards([str(folder) for folder in folders])
    reading = Reading(folder_annotations(shards, classes or ClassTable()))
    return [item for shard in shards for item in read_shard(shard, reading)]


def labels(items: list[Item]) -> dict[str, int | None]:
    return {f"{item.shard}/{item.key}": item.label for item in items if isinstance(item, Sample)}


def test_images_in_sub_folders_are_found_in_order(put: Put) -> None:
    folder = put("f", "b.png", "a/2.jpg", "a/x/1.JPG", "c.webp")
    assert list_images(folder) == ["a/2.jpg", "a/x/1.JPG", "b.png", "c.webp"]


def test_hidden_files_and_folders_are_left_out(put: Put) -> None:
    assert list_images(put("f", "a.jpg", ".b.jpg", ".git/c.jpg", "d/.e/f.jpg", "d/._g.jpg")) == ["a.jpg"]


@pytest.mark.parametrize(
    "name", ["labels.csv", "x.JSON", "x.xml", "notes.txt", *(f"d/x{suffix}" for suffix in SIDE_FILES)]
)
def test_side_files_are_left_out(put: Put, name: str) -> None:
    assert list_images(put("f", "a.jpg", name)) == ["a.jpg"]


@pytest.mark.parametrize("name", ["a", "b.unknown", "c.jpg.bak", "d."])
def test_anything_else_is_taken_for_an_image(put: Put, name: str) -> None:
    assert list_images(put("f", name)) == [name]


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


# labels


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (ClassTable(), {"cat": 0, "dog": 1}),
        (ClassTable(("dog", "cow", "cat")), {"cat": 2, "dog": 0}),
        (ClassTable(("x", "y"), ("dog", "cat")), {"cat": 1, "dog": 0}),
        (ClassTable(("cow", "hen")), {"cat": 0, "dog": 1}),
    ],
    ids=["no table", "names", "wordnet ids", "none known"],
)
def test_class_folders_give_labels(put: Put, classes: ClassTable, expected: dict[str, int]) -> None:
    items = read(put("f", "cat/1.jpg", "cat/deep/2.jpg", "dog/1.jpg"), classes=classes)
    assert labels(items) == {
        "f[0]/cat/1.jpg": expected["cat"],
        "f[0]/cat/deep/2.jpg": expected["cat"],
        "f[0]/dog/1.jpg": expected["dog"],
    }


def test_class_folders_are_refused_if_some_are_unknown() -> None:
    with pytest.raises(ConfigError, match="sub-folder 'cat' is not a known class"):
        class_folders(["cat/1.jpg", "dog/1.jpg"], ClassTable(("dog", "cow")))


def test_folders_named_by_index_keep_their_index() -> None:
    members = ["10/a.jpg", "2/a.jpg"]
    assert class_folders(members, ClassTable()) == {"10/a.jpg": "10", "2/a.jpg": "2"}


@pytest.mark.parametrize("members", [["only/1.jpg", "only/2.jpg"], ["cat/1.jpg", "dog/1.jpg", "3.jpg"], ["1.jpg"], []])
def test_a_single_folder_or_loose_images_give_no_labels(members: list[str]) -> None:
    assert class_folders(members, ClassTable()) == {}


def test_class_folders_whose_names_are_not_utf8_give_labels(put: Put) -> None:
    assert labels(read(put("f", "a\udcff/1.jpg", "b/1.jpg"))) == {"f[0]/a\\xff/1.jpg": 0, "f[0]/b/1.jpg": 1}


def test_csv_files_in_the_folder_give_labels_and_boxes(put: Put) -> None:
    folder = put("f", "a.jpg", "b.jpg")
    (folder / "labels.csv").write_text("filename,class_index\na.jpg,4\n")
    (folder / "boxes.csv").write_text("filename,x0,y0,x1,y1\nb.jpg,1,2,3,4\n")
    assert read(folder) == [
        Sample("a.jpg", "f[0]", b"a.jpg", 4, None),
        Sample("b.jpg", "f[0]", b"b.jpg", None, ((1, 2, 3, 4),)),
    ]


def test_the_csv_wins_over_class_folders(put: Put) -> None:
    folder = put("f", "cat/1.jpg", "dog/1.jpg")
    (folder / "labels.csv").write_text("filename,class_index\ndog/1.jpg,9\n")
    assert labels(read(folder)) == {"f[0]/cat/1.jpg": 0, "f[0]/dog/1.jpg": 9}


def test_the_labels_of_one_folder_do_not_apply_to_another(put: Put) -> None:
    one, two, three = put("one", "1.jpg"), put("two", "1.jpg"), put("three", "1.jpg")
    (one / "labels.csv").write_text("filename,class_index\n1.jpg,1\n")
    (two / "labels.csv").write_text("filename,class_index\n1.jpg,2\n")
    assert labels(read(one, two, three)) == {"one[0]/1.jpg": 1, "two[0]/1.jpg": 2, "three[0]/1.jpg": None}


def test_a_csv_in_the_folder_without_its_columns_is_an_error(put: Put) -> None:
    folder = put("f", "a.jpg")
    (folder / "labels.csv").write_text("file,class\na.jpg,4\n")
    with pytest.raises(ConfigError, match="no column"):
        read(folder)
