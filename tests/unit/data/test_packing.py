"""Packing: shards contain all images of the folder under any name, and the same input gives the same bytes."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.archives.base import Archive
from pipeline.data.packing import Packed, pack_archive, pack_images
from pipeline.data.sources import Failure, Item, Reading, Sample, Shard, read_shard
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError
from pipeline.settings.data import Folders

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write images into a source folder; the content of each is its own name."""

    def put(*names: str, folder: str = "source") -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode("utf-8", "surrogateescape"))
        return tmp_path / folder

    return put


def packed(source: Path, dest: Path | None = None, size: int = 100) -> Packed:
    return pack_images(source, dest or source.parent / "dest", size)


def read_back(result: Packed) -> list[Item]:
    return [item for shard in list_shards(result.pattern) for item in read_shard(shard, Reading())]


def keys(result: Packed) -> dict[str, bytes]:
    """Return the bytes of the images that are read back, by key."""
    items = read_back(result)
    assert all(isinstance(item, Sample) for item in items), items
    return {item.key: item.image for item in items if isinstance(item, Sample)}


def test_images_labels_and_boxes_come_back(put: Put) -> None:
    source = put("b.png", "a/1.jpg", "a/2.JPEG")
    (source / "labels.csv").write_text("filename,class_index\na/1.jpg,3\nb.png,4\n")
    (source / "boxes.csv").write_text("filename,x0,y0,x1,y1\na/1.jpg,1,2,3,4.5\na/1.jpg,5,6,7,8\n")
    result = packed(source)
    shard = "shard-000000.tar"
    assert read_back(result) == [
        Sample("a/1", shard, b"a/1.jpg", 3, ((1, 2, 3, 4.5), (5, 6, 7, 8))),
        Sample("a/2", shard, b"a/2.JPEG", None, None),
        Sample("b", shard, b"b.png", 4, None),
    ]
    assert (result.shards, result.images, result.failures) == (1, 3, ())


@pytest.mark.parametrize(("folders", "labels"), [("classes", [0, 1]), ("auto", [None, None]), ("ignore", [None, None])])
def test_class_folders_become_labels_where_it_is_said(put: Put, folders: Folders, labels: list[int | None]) -> None:
    source = put("cat/1.jpg", "dog/1.jpg")
    items = read_back(pack_images(source, source.parent / "dest", 10, folders=folders))
    assert [(item.key, item.label) for item in items if isinstance(item, Sample)] == [
        ("cat/1", labels[0]), ("dog/1", labels[1]),
    ]  # fmt: skip


def test_folders_of_wordnet_ids_have_the_labels_of_imagenet(put: Put) -> None:
    items = read_back(packed(put("n02979186/1.jpg", "n01440764/1.jpg")))
    assert [item.label for item in items if isinstance(item, Sample)] == [0, 482]


def test_the_account_comes_before_anything_is_written(put: Put) -> None:
    source, told = put("a.jpg", "b.jpg"), []
    dest = source.parent / "dest"
    (source / "labels.csv").write_text("filename,class_index\na.jpg,3\n")
    pack_images(source, dest, 10, tell=lambda account: told.append((account.lines()[0], dest.exists())))
    assert told == [("labels    labels.csv: 1 row, 1 matched, 1 image without, 0 rows without an image", False)]


def test_a_label_file_that_names_no_image_is_refused_before_anything_is_written(put: Put) -> None:
    source = put("a.jpg")
    (source / "labels.csv").write_text("filename,class_index\nz.jpg,3\n")
    with pytest.raises(ConfigError, match=r"no row of '.*labels\.csv' matches an image"):
        packed(source)
    assert not (source.parent / "dest").exists()


def test_a_class_table_numbers_the_class_folders(put: Put, tmp_path: Path) -> None:
    table = tmp_path / "classes.txt"
    table.write_text("dog\ncat\n")
    result = pack_images(put("cat/1.jpg", "dog/1.jpg"), tmp_path / "dest", 10, str(table))
    assert [item.label for item in read_back(result) if isinstance(item, Sample)] == [1, 0]


@pytest.mark.parametrize(("count", "sizes"), [(4, [4]), (5, [4, 1]), (8, [4, 4])])
def test_shards_contain_the_requested_number_of_images(put: Put, count: int, sizes: list[int]) -> None:
    result = packed(put(*(f"{i}.jpg" for i in range(count))), size=4)
    shards = list_shards(result.pattern)
    assert [len(list(read_shard(shard, Reading()))) for shard in shards] == sizes
    assert result.shards == len(sizes)


def test_names_with_dots_are_kept(put: Put) -> None:
    result = packed(put("img.v1.final.jpg", "d.x/a.b.png", "scan.jpg", "scan.1.jpg", "scan.mask.jpg", "a..jpg"))
    assert keys(result) == {
        "a": b"a..jpg",
        "d.x/a.b": b"d.x/a.b.png",
        "img.v1.final": b"img.v1.final.jpg",
        "scan": b"scan.jpg",
        "scan.1": b"scan.1.jpg",
        "scan.mask": b"scan.mask.jpg",
    }


def test_labels_of_names_with_dots_come_back(put: Put) -> None:
    source = put("scan.jpg", "scan.b.jpg", "scan.1.jpg")
    (source / "labels.csv").write_text("filename,class_index\nscan.jpg,3\nscan.1.jpg,4\nscan.b.jpg,5\n")
    items = read_back(packed(source))
    assert {item.key: item.label for item in items if isinstance(item, Sample)} == {
        "scan": 3, "scan.1": 4, "scan.b": 5,
    }  # fmt: skip


def test_each_shard_alone_keeps_names_with_dots(put: Put) -> None:
    result = packed(put("scan.1.jpg", "scan.2.jpg", "scan.jpg"), size=1)
    assert [item.key for item in read_back(result)] == ["scan.1", "scan.2", "scan"]


def test_files_that_would_share_a_key_keep_their_suffix(put: Put) -> None:
    result = packed(put("a.jpg", "a.png", "a_2.jpg", "x.y.jpg", "x_y.jpg"))
    assert keys(result) == {
        "a": b"a.jpg",
        "a.png": b"a.png",
        "a_2": b"a_2.jpg",
        "x.y": b"x.y.jpg",
        "x_y": b"x_y.jpg",
    }


@pytest.mark.parametrize(("name", "key"), [("photo.JPG", "photo"), ("a b.jpg", "a b"), ("🦊é.webp", "🦊é")])
def test_any_name_gives_a_readable_sample(put: Put, name: str, key: str) -> None:
    assert keys(packed(put(name))) == {key: name.encode()}


@pytest.mark.parametrize("name", ["noext", "odd.heic", "odd.v1.bin"])
def test_an_image_without_the_suffix_of_one_is_known_by_its_content(put: Put, name: str) -> None:
    source = put(name)
    (source / name).write_bytes(b"\x89PNG\r\n\x1a\n...")
    assert keys(packed(source)) == {name: b"\x89PNG\r\n\x1a\n..."}


def test_what_is_no_image_is_left_out_and_reported(put: Put) -> None:
    result = packed(put("a.jpg", "README.md", "Thumbs.db", "notes", "weights.bin"))
    assert keys(result) == {"a": b"a.jpg"}
    assert [(failure.key, failure.code) for failure in result.failures] == [
        ("notes", "format"),
        ("weights.bin", "format"),
    ]


def test_a_name_that_is_not_utf8_gives_a_readable_sample(put: Put) -> None:
    assert keys(packed(put("caf\udce9.jpg"))) == {"caf\\xe9": b"caf\xe9.jpg"}


def test_a_csv_lists_what_is_packed_in_its_order(put: Put) -> None:
    source = put("a.jpg", "b.jpg", "c.jpg")
    (source / "list.csv").write_text("filename,class_index\nc.jpg,7\na.jpg,8\n")
    (source / "boxes.csv").write_text("filename,x0,y0,x1,y1\na.jpg,1,2,3,4\n")
    result = packed(source / "list.csv", source.parent / "dest")
    assert read_back(result) == [
        Sample("c", "shard-000000.tar", b"c.jpg", 7, None),
        Sample("a", "shard-000000.tar", b"a.jpg", 8, ((1, 2, 3, 4),)),
    ]


def test_a_csv_needs_no_labels_and_may_name_a_file_twice(put: Put) -> None:
    source = put("a.jpg")
    (source / "list.csv").write_text("filename\na.jpg\na.jpg\n")
    assert keys(packed(source / "list.csv", source.parent / "dest")) == {"a": b"a.jpg", "a.jpg": b"a.jpg"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "filename,label\nb.jpg,2\na.jpg,1\n"),
        ("list.tsv", "path\tclass\nb.jpg\t2\na.jpg\t1\n"),
        ("list.jsonl", '{"image": "b.jpg", "label": 2}\n{"image": "a.jpg", "label": 1}\n'),
        ("list.csv", "path;target\nb.jpg;2\na.jpg;1\n"),
    ],
)
def test_any_list_that_is_a_manifest_is_packed_with_its_labels(put: Put, name: str, text: str) -> None:
    source = put("a.jpg", "b.jpg", "c.jpg")
    (source / name).write_text(text)
    result = packed(source / name, source.parent / "dest")
    assert [(item.key, item.label) for item in read_back(result) if isinstance(item, Sample)] == [("b", 2), ("a", 1)]


@pytest.mark.parametrize("row", ["missing.jpg", "bad\0name.jpg", '""', "."])
def test_a_row_that_names_no_file_is_left_out_and_reported(put: Put, row: str) -> None:
    source = put("a.jpg")
    (source / "list.csv").write_text(f"filename\n{row}\na.jpg\n")
    result = packed(source / "list.csv", source.parent / "dest")
    assert [failure.code for failure in result.failures] == ["unreadable"]
    assert keys(result) == {"a": b"a.jpg"}


def test_an_image_with_a_bad_label_is_left_out_and_reported(put: Put) -> None:
    source = put("a.jpg", "b.jpg")
    (source / "labels.csv").write_text("filename,class_index\na.jpg,bird\n")
    result = packed(source)
    assert [(failure.key, failure.code) for failure in result.failures] == [("a.jpg", "label")]
    assert keys(result) == {"b": b"b.jpg"}


def test_when_nothing_can_be_packed_there_is_an_empty_shard(put: Put) -> None:
    source = put("a.jpg")
    (source / "list.csv").write_text("filename\nmissing.jpg\n")
    result = packed(source / "list.csv", source.parent / "dest")
    assert (result.images, len(result.failures), read_back(result)) == (0, 1, [])


@pytest.mark.parametrize("existing", ["dest/old.tar", "dest/.hidden"])
def test_a_folder_that_is_not_empty_is_refused_and_not_changed(put: Put, existing: str) -> None:
    source = put("a.jpg")
    old = source.parent / existing
    old.parent.mkdir()
    old.write_bytes(b"old")
    with pytest.raises(ConfigError, match="not an empty folder"):
        packed(source)
    assert [path.read_bytes() for path in old.parent.iterdir()] == [b"old"]


def test_a_file_in_place_of_the_destination_is_refused(put: Put) -> None:
    source = put("a.jpg")
    (source.parent / "dest").write_bytes(b"old")
    with pytest.raises(ConfigError, match="not an empty folder"):
        packed(source)


def test_an_empty_folder_and_missing_parents_are_fine(put: Put) -> None:
    source = put("a.jpg")
    (source.parent / "dest").mkdir()
    assert packed(source).images == 1
    assert packed(source, source.parent / "new" / "deep").images == 1


def test_shards_are_not_packed_again(put: Put) -> None:
    with pytest.raises(ConfigError, match="already contains shards"):
        packed(put("a.tar", "labels.csv"))


def test_a_folder_without_images_is_refused_before_anything_is_written(put: Put) -> None:
    source = put("labels.csv")
    with pytest.raises(ConfigError, match="contains no image"):
        packed(source)
    assert not (source.parent / "dest").exists()


def test_the_same_input_gives_the_same_bytes(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put("cat/1.jpg", "cat/2.jpg", "dog/3.jpg")
    packed(source, source.parent / "one", size=2)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    packed(source, source.parent / "two", size=2)
    for name in ("shard-000000.tar", "shard-000001.tar"):
        assert (source.parent / "one" / name).read_bytes() == (source.parent / "two" / name).read_bytes()


@pytest.mark.parametrize("dest", ["50%off", "%06d", "pipe:touch canary", "s3:bucket", "a b"])
def test_the_destination_is_always_taken_for_a_path(put: Put, monkeypatch: pytest.MonkeyPatch, dest: str) -> None:
    source = put("a.jpg")
    monkeypatch.chdir(source.parent)
    result = packed(source, Path(dest))
    assert result.shards == 1
    assert sorted(path.name for path in source.parent.iterdir()) == sorted(["source", dest])
    assert [path.name for path in Path(dest).iterdir()] == ["shard-000000.tar"]


def test_failures_of_reading_are_returned(put: Put) -> None:
    source = put("a.jpg")
    (source / "list.csv").write_text("filename\ngone.jpg\n")
    (failure,) = packed(source / "list.csv", source.parent / "dest").failures
    assert failure == Failure("gone.jpg", "list.csv", "read", "unreadable", "No such file or directory")


def test_any_class_name_of_an_archive_comes_back_unchanged(
    tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("=1+1", "+a", "-b", "@c", "\td", 'quo"ted, with comma', "two\nlines", "line\u2028mark", " padded ", "süß")
    shard = Shard(0, "source", "folder", str(put("x.jpg")), 0, "", 1, members=("x.jpg",))
    archive = Archive(shard, {"x.jpg": Sample("x.jpg", "", b"", 0, None)}, ClassTable(names))
    monkeypatch.setattr("pipeline.data.packing.read_archive", lambda *_: archive)
    pack_archive("voc2007", tmp_path, tmp_path / "dest", 1)
    assert load_classes(str(tmp_path / "dest" / "classes.csv")).names == names
