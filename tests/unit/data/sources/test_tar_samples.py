"""Samples of a tar: adjacent members of one key, with their label, their boxes and exactly one image."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import SAMPLES, Files, ReadBytes, failures, keys, samples, tar_of, three_samples

from pipeline.data.sources import Sample


def test_adjacent_members_of_one_key_are_one_sample(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(tar_of(three_samples()))
    assert items == [Sample(key, "s.tar", image, label, None) for key, (image, label) in SAMPLES.items()]


@pytest.mark.parametrize("order", [["jpg", "cls"], ["cls", "jpg"], ["CLS", "JPG"]])
def test_members_of_a_sample_may_be_in_any_order_and_case(read_tar_bytes: ReadBytes, order: list[str]) -> None:
    content = {"jpg": b"pixels", "cls": b"7"}
    items = read_tar_bytes(tar_of([(f"k.{suffix}", content[suffix.lower()]) for suffix in order]))
    assert items == [Sample("k", "s.tar", b"pixels", 7, None)]


@pytest.mark.parametrize(
    ("members", "label"),
    [
        ({"cls": b"3\n"}, 3),
        ({"json": b'{"label": 4}'}, 4),
        ({"txt": b" 5 "}, 5),
        ({"cls": b"3", "json": b'{"label": 4}', "txt": b"5"}, 3),
        ({"json": b'{"label": 4}', "txt": b"5"}, 4),
        ({}, None),
    ],
)
def test_the_label_comes_from_cls_then_json_then_txt(
    read_tar_bytes: ReadBytes, members: dict[str, bytes], label: int | None
) -> None:
    (item,) = samples(read_tar_bytes(tar_of([("k.jpg", b"p"), *((f"k.{s}", d) for s, d in members.items())])))
    assert item.label == label


VOC = b"<a><object><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></a>"


@pytest.mark.parametrize(
    ("members", "boxes"),
    [
        ({"json": b'{"boxes": [[1, 2, 3, 4], [5, 6, 7.5, 8]]}'}, ((1, 2, 3, 4), (5, 6, 7.5, 8))),
        ({"xml": VOC}, ((1, 2, 3, 4),)),
        ({"json": b'{"boxes": [[9, 9, 9, 9]]}', "xml": VOC}, ((9, 9, 9, 9),)),
        ({"json": b"{}", "xml": VOC}, ((1, 2, 3, 4),)),
        ({"json": b'{"boxes": []}'}, ()),
        ({}, None),
    ],
)
def test_the_boxes_come_from_json_then_xml(
    read_tar_bytes: ReadBytes, members: dict[str, bytes], boxes: tuple[tuple[float, ...], ...] | None
) -> None:
    (item,) = samples(read_tar_bytes(tar_of([("k.jpg", b"p"), *((f"k.{s}", d) for s, d in members.items())])))
    assert item.boxes_xyxy == boxes


@pytest.mark.parametrize(
    ("suffixes", "chosen"),
    [(["jpg", "v1.jpg"], "jpg"), (["v1.jpg", "png"], "png"), (["v1.jpg"], "v1.jpg"), (["mask.npy", "WEBP"], "WEBP")],
)
def test_a_plain_image_suffix_wins_over_a_compound_one(
    read_tar_bytes: ReadBytes, suffixes: list[str], chosen: str
) -> None:
    (item,) = samples(read_tar_bytes(tar_of([(f"k.{suffix}", suffix.encode()) for suffix in suffixes])))
    assert item.image == chosen.encode()


@pytest.mark.parametrize(
    ("suffixes", "code"),
    [
        (["jpg", "png"], "ambiguous_image"),
        (["input.jpg", "mask.png"], "ambiguous_image"),
        (["cls"], "no_image"),
        (["npy", "json"], "no_image"),
    ],
)
def test_a_sample_with_two_images_or_none_fails(read_tar_bytes: ReadBytes, suffixes: list[str], code: str) -> None:
    items = read_tar_bytes(tar_of([(f"k.{suffix}", b"{}") for suffix in suffixes]))
    assert (samples(items), failures(items)) == ([], [("k", code)])


def test_a_member_without_suffix_is_not_an_image(read_tar_bytes: ReadBytes) -> None:
    assert failures(read_tar_bytes(tar_of([("README", b"hello")]))) == [("README", "no_image")]


def test_a_bad_label_fails_only_its_sample(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(tar_of([("a.jpg", b"1"), ("a.cls", b"cat"), ("b.jpg", b"2")]))
    assert (keys(items), failures(items)) == (["b"], [("a", "label")])


def test_separated_members_of_a_key_are_reported_and_the_first_group_is_used(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(tar_of([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.cls", b"7")]))
    assert [(sample.key, sample.label) for sample in samples(items)] == [("a", None), ("b", None)]
    assert failures(items) == [("a@2048", "duplicate_key")]


def test_a_repeated_member_is_reported_and_the_first_is_used(read_tar_bytes: ReadBytes) -> None:
    items = read_tar_bytes(tar_of([("a.jpg", b"1"), ("a.JPG", b"2")]))
    assert [sample.image for sample in samples(items)] == [b"1"]
    assert failures(items) == [("a@1024", "duplicate_key")]


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="./\0"), min_size=1, max_size=20)
SAMPLE_LISTS = st.lists(
    st.tuples(KEYS, st.binary(max_size=1200), st.none() | st.integers(0, 10**9 - 1)),
    max_size=6,
    unique_by=lambda sample: sample[0],
)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(wanted=SAMPLE_LISTS, kind=st.sampled_from(["pax", "gnu"]), suffix=st.sampled_from(["jpg", "PNG", "v2.webp"]))
def test_any_valid_tar_comes_back_in_order(
    read_tar_bytes: ReadBytes, wanted: list[tuple[str, bytes, int | None]], kind: str, suffix: str
) -> None:
    files: Files = []
    for key, image, label in wanted:
        files.append((f"{key}.{suffix}", image))
        files.extend([(f"{key}.cls", str(label).encode())] if label is not None else [])
    items = read_tar_bytes(tar_of(files, kind))
    assert items == [Sample(key, "s.tar", image, label, None) for key, image, label in wanted]
