"""Names with dots in tars: several samples or several members of one, as all names of the tar show."""

from pathlib import Path

import pytest
from tars import failures, keys, samples, tar_of

from pipeline.data.sources import Item, Reading, Shard, list_items, read_shard
from pipeline.data.sources.tar_names import MemberRules


def items_of(folder: Path, names: list[str], rules: MemberRules | None = None) -> list[Item]:
    (folder / "s.tar").write_bytes(tar_of([(name, b"7") for name in names]))
    shard = Shard(0, "s.tar", "tar", str(folder / "s.tar"), 0, "")
    reading = Reading(members=rules or MemberRules())
    items = list(read_shard(shard, reading))
    listed = [item.key for item in list_items(shard, reading)]
    assert listed == [item.key for item in items], "listing and reading give the same keys"
    return items


SAMPLES = {
    "numbers": ["scan.1.jpg", "scan.2.jpg", "scan.3.jpg"],
    "not adjacent": ["scan.1.jpg", "x.jpg", "scan.2.jpg", "y.jpg", "scan.10.jpg"],
    "a plain one too": ["scan.jpg", "scan.1.jpg", "scan.2.jpg"],
    "dates": ["cam.2024-01-01.jpg", "cam.2024-01-02.jpg"],
    "words that occur once": ["IMG.beach.jpg", "IMG.forest.jpg"],
    "versions": ["a.v1.jpg", "a.v2.jpg", "b.v1.jpg", "b.v2.jpg"],
    "long": ["1.2.840.113619.1.jpg", "1.2.840.113619.2.jpg"],
    "folders with dots": ["d.x/scan.1.jpg", "d.x/scan.2.jpg"],
}


@pytest.mark.parametrize("names", SAMPLES.values(), ids=SAMPLES.keys())
def test_names_with_dots_are_samples_of_their_own(tmp_path: Path, names: list[str]) -> None:
    assert keys(items_of(tmp_path, names)) == [name.rpartition(".")[0] for name in names]


def test_annotations_belong_to_the_image_of_the_same_name(tmp_path: Path) -> None:
    items = items_of(tmp_path, ["s.1.cls", "s.1.jpg", "s.2.jpg", "s.2.cls", "s.jpg", "t.jpg", "t.cls"])
    found = [(item.key, item.label) for item in samples(items)]
    assert found == [("s.1", 7), ("s.2", 7), ("s", None), ("t", 7)]


ORDINARY = {
    "roles with one annotation": (["x.input.jpg", "x.mask.png", "x.cls"], [], [("x", "ambiguous_image")]),
    "a plain image and a mask": (["x.jpg", "x.mask.png", "y.jpg", "y.mask.png"], ["x", "y"], []),
    "a plain image and a variant": (["x.jpg", "x.small.jpg", "x.cls"], ["x"], []),
    "one compound image": (["x.input.jpg", "x.cls", "y.input.jpg"], ["x", "y"], []),
    "sides": (
        ["x.left.jpg", "x.right.jpg", "y.left.jpg", "y.right.jpg"],
        [],
        [("x", "ambiguous_image"), ("y", "ambiguous_image")],
    ),
    "annotations with dots": (["x.jpg", "x.meta.json", "x.a.b.txt"], ["x"], []),
}


@pytest.mark.parametrize(("names", "read", "failed"), ORDINARY.values(), ids=ORDINARY.keys())
def test_words_before_the_suffix_name_members_of_one_sample(
    tmp_path: Path, names: list[str], read: list[str], failed: list[tuple[str, str]]
) -> None:
    items = items_of(tmp_path, names)
    assert (keys(items), failures(items)) == (read, failed)


def test_the_run_file_names_the_image_the_label_and_what_to_ignore(tmp_path: Path) -> None:
    names = [
        f"{key}.{suffix}" for key in ("a", "b.1", "b.2") for suffix in ("input.jpg", "mask.png", "Output.cls", "txt")
    ]
    items = items_of(tmp_path, names, MemberRules("input.jpg", "output.cls", ("*.mask.png",)))
    assert [(item.key, item.label) for item in samples(items)] == [("a", 7), ("b.1", 7), ("b.2", 7)]
    assert failures(items) == []


def test_ignored_members_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    rules = MemberRules(ignore=("*.png", "extra/*"))
    assert keys(items_of(tmp_path, ["x.png", "x.jpg", "extra/y.jpg", "z.jpg"], rules)) == ["x", "z"]


def test_a_missing_image_of_that_suffix_says_which_was_expected(tmp_path: Path) -> None:
    (item,) = items_of(tmp_path, ["x.jpg"], MemberRules("input.jpg"))
    assert "data.members expects '.input.jpg'" in getattr(item, "detail", "")


def test_an_archive_in_a_tar_is_named(tmp_path: Path) -> None:
    items = items_of(tmp_path, ["a.jpg", "n01440764.tar"])
    assert failures(items) == [("n01440764", "no_image")]
    assert "an archive within the tar" in getattr(items[1], "detail", "")
