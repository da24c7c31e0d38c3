"""Labels and boxes as they stand in the members of a sample: `.cls`, `.json`, `.txt`, `.xml`."""

import json
import math
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from pipeline.data.sources.shards import Box, Boxes

MAX_TEXT_BYTES = 1 << 20
"""Longest label or box member that is parsed."""


class BadAnnotationError(ValueError):
    """A label or box that is present and cannot be right; becomes a failure row with `code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def label_text(members: Mapping[str, bytes]) -> str | None:
    """Give the label as written: `.cls`, then `label` of `.json`, then `.txt`."""
    if "cls" in members:
        return _text(members["cls"], "label")
    if "json" in members:
        label = _json(members["json"], "label").get("label")
        return None if label is None else str(label)
    return _text(members["txt"], "label") if "txt" in members else None


def _text(data: bytes, code: str) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise BadAnnotationError(code, f"a text of {len(data)} bytes is too long")
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadAnnotationError(code, "the text is not UTF-8") from None


def _json(data: bytes, code: str) -> dict[str, object]:
    try:
        fields = json.loads(_text(data, code))
    except (ValueError, RecursionError) as error:
        raise BadAnnotationError(code, f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadAnnotationError(code, "the JSON is not an object")
    return fields


def json_names(data: bytes, field: str) -> list[str] | None:
    """Read a list of labels of a `.json` member, `labels` or `box_labels`, as written; None where it is not there."""
    names = _json(data, field).get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, (int, str)) for name in names):
        raise BadAnnotationError(field, f"{field} is not a list of classes")
    return list(map(str, names))


def json_boxes(data: bytes) -> Boxes | None:
    """Read `boxes` of a `.json` member: a list of [x0, y0, x1, y1]."""
    boxes = _json(data, "boxes").get("boxes")
    if boxes is None:
        return None
    if not isinstance(boxes, list) or not all(isinstance(box, list) for box in boxes):
        raise BadAnnotationError("boxes", "boxes is not a list of lists")
    return tuple(parse_box(box) for box in boxes)


def xml_boxes(data: bytes) -> Boxes | None:
    """Read the `bndbox` elements of a PASCAL VOC `.xml` member."""
    found = parse_xml(data).iter("bndbox")
    return tuple(parse_box([box.findtext(name) for name in ("xmin", "ymin", "xmax", "ymax")]) for box in found)


def parse_xml(data: bytes) -> ElementTree.Element:
    """Read a bounded XML text without a document type, so that no entity can grow or reach for a file.

    Raises:
        BadAnnotationError: it is too long, has a document type, or is not XML.
    """
    text = _text(data, "boxes")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadAnnotationError("boxes", "XML with a document type is refused")
    try:
        return ElementTree.fromstring(text)  # noqa: S314 - no document type, bounded length
    except (ElementTree.ParseError, ValueError) as error:
        raise BadAnnotationError("boxes", f"not XML: {error}") from None


def parse_box(values: Sequence[object]) -> Box:
    """Read four numbers; what is no number becomes NaN and is refused when the image comes by."""
    numbers = [_number(value) for value in values]
    x0, y0, x1, y1 = numbers if len(numbers) == 4 else [math.nan] * 4
    return x0, y0, x1, y1


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def checked(boxes: Boxes) -> Boxes:
    """Refuse boxes that are not finite or are turned inside out."""
    for box in boxes:
        x0, y0, x1, y1 = box
        if not all(map(math.isfinite, box)) or x0 > x1 or y0 > y1:
            raise BadAnnotationError("boxes", f"{box} is not x0 <= x1, y0 <= y1 in finite numbers")
    return boxes
