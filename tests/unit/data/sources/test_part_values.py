"""Parts in tars: `parts.png` belongs to the image beside it, and its values are in the `.json` member."""

import json
from pathlib import Path

import pytest
from parted import VALUES, members, swapped, without
from tars import ReadBytes, failures, keys, samples, tar_of

from pipeline.data.sources import Failure, Item, Reading, list_items, read_shard
from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.shards import PartValues, Shard
from pipeline.data.sources.tar import read_tar
from pipeline.data.sources.tar_names import MemberRules, Naming, long_keys, middle_of

OTHERS = Annotations(reads_parts=False)
SHA = "ab" * 32


def test_a_sample_has_its_parts_beside_its_image_label_and_boxes(read_tar_bytes: ReadBytes) -> None:
    files = members(weights=SHA.upper(), names=["a", "b", "c"], confidence_values=[1, 2, 3])
    (item,) = samples(read_tar_bytes(tar_of(files)))
    assert item.parts == PartValues(tuple(VALUES), 1, SHA)
    assert (item.image, item.part_mask) == (files[0][1], files[2][1])
    assert (item.key, item.label, item.boxes_xyxy) == ("k", 0, ((1, 2, 9, 9),))


@pytest.mark.parametrize("image", ["k.jpg", "k.png", "k.input.png", "k.webp"])
@pytest.mark.parametrize("first", [False, True])
def test_the_mask_is_not_the_image_whatever_the_order(read_tar_bytes: ReadBytes, image: str, first: bool) -> None:
    files = [(image, b"pixels"), *members()[1:]]
    (item,) = samples(read_tar_bytes(tar_of(files[::-1] if first else files)))
    assert (item.key, item.image, item.part_mask) == ("k", b"pixels", members()[2][1])


def test_the_mask_belongs_to_a_key_with_dots(read_tar_bytes: ReadBytes) -> None:
    files = members("scan.1") + members("scan.2")
    found = samples(read_tar_bytes(tar_of(files)))
    assert [(item.key, item.part_mask) for item in found] == [("scan.1", files[2][1]), ("scan.2", files[2][1])]


def test_masks_name_no_samples() -> None:
    names = ["x.png", "x.parts.png", "y.png", "y.parts.png"]
    assert long_keys(names, lambda suffix: middle_of(suffix, ("png",))) == frozenset()


def test_the_names_of_a_tar_with_masks_are_not_listed() -> None:
    """Listing would fetch a tar in an object store twice."""

    def refused() -> list[str]:
        raise AssertionError("listed")

    naming = Naming(("png", "jpg"), MemberRules(), refused)
    assert naming.split("a/k.parts.png") == ("a/k", "parts.png")
    assert naming.split("a/k.png") == ("a/k", "png")


def test_listing_gives_the_same_keys(tmp_path: Path) -> None:
    data = tar_of(members("a") + members("b") + without(members("c"), "parts.png"))
    (tmp_path / "s.tar").write_bytes(data)
    shard = Shard(0, "s.tar", "tar", str(tmp_path / "s.tar"), len(data), "")
    assert [item.key for item in list_items(shard, Reading())] == ["a", "b", "c"]
    assert [item.key for item in read_shard(shard, Reading())] == ["a", "b", "c"]


def test_a_mask_alone_is_an_image_as_before(read_tar_bytes: ReadBytes) -> None:
    (item,) = samples(read_tar_bytes(tar_of([("k.parts.png", b"pixels"), ("k.cls", b"1")])))
    assert (item.key, item.image, item.label, item.parts, item.part_mask) == ("k", b"pixels", 1, None, None)


@pytest.mark.parametrize(
    "rules", [MemberRules(image="parts.png"), MemberRules(ignore=("k.png",)), MemberRules(image="png")]
)
def test_the_run_file_may_call_another_member_the_image(tmp_path: Path, rules: MemberRules) -> None:
    data = tar_of(members())
    (tmp_path / "s.tar").write_bytes(data)
    shard = Shard(0, "s.tar", "tar", str(tmp_path / "s.tar"), len(data), "")
    (item,) = read_tar(shard, OTHERS, rules=rules)
    is_mask = rules.image != "png"
    assert (item.key, getattr(item, "image", None)) == ("k", members()[2 if is_mask else 0][1])


# what is wrong


def detail(items: list[Item]) -> str:
    (item,) = items
    assert isinstance(item, Failure)
    assert (item.key, item.stage, item.code) == ("k", "read", "parts")
    return item.detail


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "no values": ({"values": []}, "parts.values is not a list of one number for each part"),
    "a number": ({"values": 1.5}, "parts.values is not a list"),
    "too many": ({"values": [0.1] * 9}, "9 values of parts; an image has at most 8 parts"),
    "NaN": ({"values": [1.0, float("nan")]}, "the value nan of a part is not a finite number"),
    "infinite": ({"values": [float("-inf")]}, "the value -inf of a part"),
    "huge": ({"values": [10**400]}, "of a part is not a finite number"),
    "text": ({"values": ["0.5"]}, "the value 0.5 of a part is not a finite number"),
    "true": ({"values": [True]}, "the value True of a part"),
    "null": ({"values": [None]}, "the value None of a part"),
    "no target": ({"target": None}, "parts.target is the index of a class, an integer from 0 on, not None"),
    "a name": ({"target": "cat"}, "an integer from 0 on, not cat"),
    "a fraction": ({"target": 1.0}, "an integer from 0 on, not 1.0"),
    "negative": ({"target": -1}, "an integer from 0 on, not -1"),
    "a truth": ({"target": True}, "an integer from 0 on, not True"),
    "no digest": ({"weights": "v1"}, "parts.weights is the sha256 of the model's weights, 64 hex digits, not 'v1'"),
    "a count": ({"weights": 7}, "64 hex digits, not '7'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_values_are_a_failure(read_tar_bytes: ReadBytes, name: str) -> None:
    changes, sentence = WRONG[name]
    data = tar_of(members(**changes))
    assert sentence in detail(read_tar_bytes(data))
    (item,) = samples(read_tar_bytes(data, OTHERS))
    assert (item.parts, item.part_mask, item.label) == (None, None, 0)


@pytest.mark.parametrize("fields", [{}, {"parts": None}, {"parts": [1]}, {"parts": {"target": 1}}, None])
def test_a_mask_without_values_is_a_failure(read_tar_bytes: ReadBytes, fields: dict[str, object] | None) -> None:
    files = without(members(), "json") if fields is None else swapped(members(), "json", json.dumps(fields).encode())
    assert "a mask of parts without their values" in detail(read_tar_bytes(tar_of(files)))
    assert keys(read_tar_bytes(tar_of(files), OTHERS)) == ["k"]


def test_values_without_a_mask_are_a_failure(read_tar_bytes: ReadBytes) -> None:
    data = tar_of(without(members(), "parts.png"))
    assert detail(read_tar_bytes(data)) == "values of parts without their mask: there is no member parts.png"
    (item,) = samples(read_tar_bytes(data, OTHERS))
    assert item.parts is None


@pytest.mark.parametrize("parts", [["head", "tail"], "two", {"head": [1, 2]}, None, 3])
def test_a_field_that_means_something_else_is_ignored(read_tar_bytes: ReadBytes, parts: object) -> None:
    files = [("k.png", b"pixels"), ("k.json", json.dumps({"label": 3, "parts": parts}).encode())]
    (item,) = samples(read_tar_bytes(tar_of(files)))
    assert (item.label, item.parts, item.part_mask) == (3, None, None)


def test_runs_that_do_not_read_parts_keep_their_values_and_no_mask(read_tar_bytes: ReadBytes) -> None:
    (item,) = samples(read_tar_bytes(tar_of(members()), OTHERS))
    assert (item.parts, item.part_mask) == (PartValues(tuple(VALUES), 1), None)


def test_other_samples_of_the_shard_are_kept(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(tar_of(members("a") + members("b", values=[]) + members("c")))
    assert (keys(items), failures(items)) == (["a", "c"], [("b", "parts")])
