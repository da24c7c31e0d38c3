"""Images by suffix: other files than images are found for a decoder, in tars and in folders."""

from pathlib import Path

import pytest
from tars import tar_of

from pipeline.data.sources import Reading, Shard, read_shard
from pipeline.data.sources.folder_files import find_files
from pipeline.data.sources.listing import list_shards
from pipeline.data.sources.shards import Failure, Item, Sample
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.errors import ConfigError


def items_of(folder: Path, members: list[tuple[str, bytes]], suffixes: tuple[str, ...]) -> list[Item]:
    (folder / "s.tar").write_bytes(tar_of(members))
    shard = Shard(0, "s.tar", "tar", str(folder / "s.tar"), (folder / "s.tar").stat().st_size, "")
    return list(read_shard(shard, Reading(suffixes=suffixes)))


def codes(items: list[Item]) -> dict[str, str]:
    return {item.key: item.code if isinstance(item, Failure) else "read" for item in items}


def test_any_member_that_is_not_an_annotation_may_be_the_image(tmp_path: Path) -> None:
    members = [
        ("a.npy", b"1"), ("a.cls", b"3"), ("a.json", b"{}"), ("b.dcm", b"2"), ("c", b"3"), ("d.nii.gz", b"4"),
        ("e.cls", b"1"), ("f.npy", b"5"), ("f.mask.npy", b"6"), ("g.npy", b"7"), ("g.dcm", b"8"), ("h.img", b"9"),
    ]  # fmt: skip
    items = items_of(tmp_path, members, ())
    assert codes(items) == {
        "a": "read", "b": "read", "c": "read", "d": "read", "e": "no_image", "f": "read", "g": "ambiguous_image",
        "h": "read",
    }  # fmt: skip
    by_key = {item.key: item for item in items if isinstance(item, Sample)}
    assert (by_key["a"].image, by_key["a"].label, by_key["f"].image) == (b"1", 3, b"5")


def test_given_suffixes_choose_the_member(tmp_path: Path) -> None:
    members = [
        ("a.npy", b"1"),
        ("a.dcm", b"2"),
        ("b.v1.npy", b"3"),
        ("c.nii.gz", b"4"),
        ("d.t1.nii.gz", b"5"),
        ("e.jpg", b"6"),
    ]
    items = items_of(tmp_path, members, ("npy", "nii.gz"))
    assert codes(items) == {"a": "read", "b": "read", "c": "read", "d": "read", "e": "no_image"}
    assert [item.image for item in items if isinstance(item, Sample)] == [b"1", b"3", b"4", b"5"]


def test_without_a_decoder_images_have_the_suffixes_of_image_files(tmp_path: Path) -> None:
    assert codes(items_of(tmp_path, [("a.npy", b"1"), ("b.tif", b"2")], IMAGE_SUFFIXES)) == {
        "a": "no_image", "b": "read",
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.NPY", "b.npy", "c.dcm", "d.nii.gz", "labels.csv", "x/e.npy", ".f.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_folder_lists_every_file_that_is_not_an_annotation(folder: Path) -> None:
    assert find_files(folder).images == ["a.NPY", "b.npy", "c.dcm", "d.nii.gz", "x/e.npy"]


def test_given_suffixes_choose_the_files(folder: Path) -> None:
    assert find_files(folder, ["npy"]).images == ["a.NPY", "b.npy", "x/e.npy"]
    (shard,) = list_shards(str(folder), suffixes=["nii.gz", "dcm"])
    assert shard.members == ("c.dcm", "d.nii.gz")


def test_a_folder_without_such_files_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file of data.suffixes \(tif\)"):
        list_shards(str(folder), suffixes=["tif"])


def test_loose_images_beside_shards_are_those_of_the_suffixes(folder: Path) -> None:
    (folder / "s.tar").write_bytes(tar_of([("a.npy", b"1")]))
    assert [shard.name for shard in list_shards(str(folder))] == ["s.tar"]
    with pytest.raises(ConfigError, match="both shards and loose images"):
        list_shards(str(folder), suffixes=["npy"])
