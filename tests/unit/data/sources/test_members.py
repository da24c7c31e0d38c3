"""Labels and boxes in the members of a sample: valid ones are read, invalid ones have a code."""

import math

import pytest

from pipeline.data.sources.box_formats import BadAnnotationError, checked, parse_box
from pipeline.data.sources.members import MAX_TEXT_BYTES, json_boxes, label_text, xml_boxes


def voc(*boxes: tuple[object, ...]) -> bytes:
    """Return a PASCAL VOC file."""
    names = ("xmin", "ymin", "xmax", "ymax")
    parts = ["".join(f"<{n}>{v}</{n}>" for n, v in zip(names, box, strict=False)) for box in boxes]
    return f"<annotation>{''.join(f'<object><bndbox>{p}</bndbox></object>' for p in parts)}</annotation>".encode()


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, None),
        ({"jpg": b"1"}, None),
        ({"cls": b" 3\r\n"}, "3"),
        ({"json": b'{"label": 3}'}, "3"),
        ({"json": b'{"label": "cat"}'}, "cat"),
        ({"json": b'{"label": null}'}, None),
        ({"json": b"{}", "txt": b"5"}, None),
        ({"txt": "süß".encode()}, "süß"),
    ],
)
def test_the_label_is_returned_as_written(members: dict[str, bytes], text: str | None) -> None:
    assert label_text(members) == text


@pytest.mark.parametrize(
    "members",
    [
        {"cls": b"\xff\xfe"},
        {"cls": b"1" * (MAX_TEXT_BYTES + 1)},
        {"txt": b"\x80"},
        {"json": b"not json"},
        {"json": b"[1, 2]"},
        {"json": b"[" * 100_000},
        {"json": b'{"label": ' + b"9" * 5000 + b"}"},
        {"json": b" " * (MAX_TEXT_BYTES + 1)},
    ],
    ids=["not utf-8", "huge", "txt not utf-8", "no json", "a list", "deep", "a huge number", "huge json"],
)
def test_an_unreadable_label_has_the_code_label(members: dict[str, bytes]) -> None:
    with pytest.raises(BadAnnotationError) as caught:
        label_text(members)
    assert caught.value.code == "label"


@pytest.mark.parametrize(
    ("data", "boxes"),
    [
        (b"{}", None),
        (b'{"boxes": null}', None),
        (b'{"boxes": []}', ()),
        (b'{"boxes": [[0, 1, 2.5, "3"]]}', ((0, 1, 2.5, 3),)),
    ],
)
def test_boxes_of_json_are_read(data: bytes, boxes: tuple[tuple[float, ...], ...] | None) -> None:
    assert json_boxes(data) == boxes


@pytest.mark.parametrize(
    "data", [b'{"boxes": 3}', b'{"boxes": [1, 2, 3, 4]}', b'{"boxes": {"a": 1}}', b"[]", b"{", b"\xff"]
)
def test_boxes_of_json_in_another_format_have_the_code_boxes(data: bytes) -> None:
    with pytest.raises(BadAnnotationError) as caught:
        json_boxes(data)
    assert caught.value.code == "boxes"


def test_all_boxes_of_xml_are_read() -> None:
    assert xml_boxes(voc((1, 2, 3, 4), (" 5.5 ", 6, 7, 8))) == ((1, 2, 3, 4), (5.5, 6, 7, 8))


def test_xml_without_boxes_has_none() -> None:
    assert xml_boxes(b"<annotation/>") == ()


BILLION_LAUGHS = b'<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;">]><a>&m;</a>'


@pytest.mark.parametrize(
    "data",
    [
        BILLION_LAUGHS,
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a><bndbox>",
        b"",
        b"\xff",
        b"<a>&unknown;</a>",
        b"<a>" + b" " * MAX_TEXT_BYTES + b"</a>",
    ],
    ids=["entities", "external", "unclosed", "empty", "not utf-8", "unknown entity", "huge"],
)
def test_refused_xml_has_the_code_boxes(data: bytes) -> None:
    with pytest.raises(BadAnnotationError) as caught:
        xml_boxes(data)
    assert caught.value.code == "boxes"


def test_deeply_nested_xml_is_parsed() -> None:
    assert xml_boxes(b"<a>" * 50_000 + b"</a>" * 50_000) == ()


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, "x", 4), ("", 2, 3, 4), (1, "nan", 3, 4)])
def test_a_box_of_xml_without_four_numbers_is_refused_by_checked(box: tuple[object, ...]) -> None:
    boxes = xml_boxes(voc(box))
    assert boxes is not None
    with pytest.raises(BadAnnotationError):
        checked(boxes)


@pytest.mark.parametrize(
    "values", [[], [1, 2, 3], [1, 2, 3, 4, 5], [1, None, 3, 4], ["a", 2, 3, 4], [10**400, 2, 3, 4], [[1], 2, 3, 4]]
)
def test_invalid_values_become_nan(values: list[object]) -> None:
    assert any(map(math.isnan, parse_box(values)))


@pytest.mark.parametrize("box", [(0.0, 0.0, 0.0, 0.0), (-5.0, 1.0, 2.0, 1.0), (0.5, 0.5, 1e9, 1e9)])
def test_boxes_outside_the_image_or_without_area_are_valid(box: tuple[float, ...]) -> None:
    assert checked((box,)) == (box,)


@pytest.mark.parametrize(
    "box",
    [
        (math.nan, 0, 1, 1),
        (0, math.inf, 1, math.inf),
        (-math.inf, 0, 1, 1),
        (2, 0, 1, 1),
        (0, 2, 1, 1),
        (0, 0, 1, math.nan),
    ],
)
def test_boxes_that_are_not_finite_or_have_swapped_corners_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(BadAnnotationError) as caught:
        checked(((0.0, 0.0, 1.0, 1.0), box))
    assert caught.value.code == "boxes"
