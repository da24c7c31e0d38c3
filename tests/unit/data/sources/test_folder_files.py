"""Files of folders: links are followed and loops end, litter and masks are told apart, archives are named."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.sources.folder_files import find_files
from pipeline.data.sources.listing import list_shards
from pipeline.errors import ConfigError

Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write files into the folder `f`."""

    def put(*names: str) -> Path:
        for name in names:
            path = tmp_path / "f" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return tmp_path / "f"

    return put


def test_linked_folders_and_files_are_followed(put: Put, tmp_path: Path) -> None:
    folder = put("a.jpg")
    (tmp_path / "elsewhere" / "cat").mkdir(parents=True)
    (tmp_path / "elsewhere" / "cat" / "1.jpg").write_bytes(b"x")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere" / "cat")
    (folder / "b.jpg").symlink_to(tmp_path / "elsewhere" / "cat" / "1.jpg")
    assert find_files(folder).images == ["a.jpg", "again/1.jpg", "b.jpg", "linked/cat/1.jpg"]


def test_circular_links_end(put: Put) -> None:
    folder = put("a.jpg", "d/b.jpg", "e/c.jpg")
    (folder / "d" / "up").symlink_to(folder)
    (folder / "d" / "e").symlink_to(folder / "e")
    (folder / "e" / "d").symlink_to(folder / "d")
    (folder / "self.jpg").symlink_to("self.jpg")
    assert find_files(folder).images == ["a.jpg", "d/b.jpg", "d/e/c.jpg", "e/c.jpg", "e/d/b.jpg", "self.jpg"]


def test_folders_that_all_link_to_each_other_are_refused(put: Put) -> None:
    folder = put(*(f"{i}/a.jpg" for i in range(8)))
    for i in range(8):
        for j in range(8):
            (folder / str(i) / f"to{j}").symlink_to(folder / str(j))
    with pytest.raises(ConfigError, match="reached by more than 1000 links"):
        find_files(folder)


def test_a_broken_link_is_a_lost_image(put: Put) -> None:
    folder = put("a.jpg")
    (folder / "b.jpg").symlink_to("gone.jpg")
    (folder / "notes.txt").symlink_to("gone.txt")
    assert find_files(folder).images == ["a.jpg", "b.jpg"]
    (shard,) = list_shards(str(folder))
    assert shard.members == ("a.jpg", "b.jpg")


def test_a_folder_that_may_not_be_read_is_named(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put("a.jpg", "d/b.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "d":
            raise PermissionError(13, os.strerror(13), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match="d': Permission denied"):
        list_shards(str(folder))


def test_pipes_are_not_files(put: Put) -> None:
    folder = put("a.jpg")
    os.mkfifo(folder / "p.jpg")
    assert find_files(folder).ignored == {"not a file": ["p.jpg"]}


def test_litter_is_counted_by_what_it_is(put: Put) -> None:
    names = (
        ".DS_Store", "x/._a.jpg", "Thumbs.db", "x/desktop.ini", "README.md", "LICENSE", "a.json", "a.jsonl", "b.XML",
        "SHA256SUMS", "a.jpg.md5", "all.zip", "notes~",
    )  # fmt: skip
    folder = put("a.jpg", "noext", "x.bin", *names)
    found = find_files(folder)
    assert found.images == ["a.jpg", "noext", "x.bin"]
    assert find_files(folder).ignored == {
        "checksum": ["a.jpg.md5"],
        "hidden": [".DS_Store", "x/._a.jpg"],
        "litter": ["LICENSE", "SHA256SUMS", "Thumbs.db", "notes~", "x/desktop.ini"],
        "text": ["README.md", "a.json", "a.jsonl", "b.XML"],
        "zip": ["all.zip"],
    }
    assert sum(map(len, found.ignored.values())) == len(names)


def test_masks_beside_images_are_not_images(put: Put) -> None:
    folder = put(
        "VOC2012/JPEGImages/a.jpg", "VOC2012/SegmentationClass/a.png", "VOC2012/SegmentationObject/a.png",
        "VOC2012/Annotations/a.xml", "ade/images/train/b.jpg", "ade/annotations/train/b.png",
    )  # fmt: skip
    assert find_files(folder).images == ["VOC2012/JPEGImages/a.jpg", "ade/images/train/b.jpg"]
    assert len(find_files(folder).ignored["mask"]) == 3


def test_a_class_of_masks_is_kept_where_no_folder_of_images_is_beside_it(put: Put) -> None:
    assert find_files(put("mask/a.jpg", "no_mask/b.jpg")).images == ["mask/a.jpg", "no_mask/b.jpg"]


@pytest.mark.parametrize(
    ("name", "kind", "way"),
    [
        ("sub/a.tar", "tar", r"\*\*/\*\.tar"),
        ("a.tfrecord", "TFRecord", "write it as tars or Parquet"),
        ("train-00000-of-01024", "TFRecord", "write it as tars or Parquet"),
        ("shard.00000.mds", "MDS", "StreamingDataset"),
        ("images.zip", "zip", "unpack it"),
        ("x/part-0.parquet", "Parquet", r"\*\*/\*\.parquet"),
        ("images.tar.xz", "archive", "unpack it"),
    ],
)
def test_a_folder_of_archives_is_named_as_what_it_is(put: Put, name: str, kind: str, way: str) -> None:
    folder = put(name, "README.md")
    with pytest.raises(ConfigError, match=rf"contains no image, but 1 {kind} file \('{name}'\) .*{way}"):
        list_shards(str(folder))
