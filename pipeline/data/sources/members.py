"""Parses labels and boxes from the members of a sample: `.cls`, `.json`, `.txt`, `.xml`."""

import json
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from pipeline.data.sources.box_formats import BadAnnotationError, parse_box, parse_boxes
from pipeline.data.sources.cells import metadata_of
from pipeline.data.sources.multi_hot import refuse_multi_hot
from pipeline.data.sources.other_names import columns_of_names
from pipeline.data.sources.shards import Boxes, Metadata
from pipeline.settings.data import BoxOrder

MAX_TEXT_BYTES = 1 << 20
"""Maximum size of a label or box member that is parsed."""


def label_text(members: Mapping[str, bytes]) -> str | None:
    """Return the label as written: from `.cls`, else `label` of `.json`, else `.txt`."""
    if "cls" in members:
        return _text(members["cls"], "label")
    if "json" in members:
        label = _json(members["json"], "label").get("label")
        return None if label is None else str(label)
    return _text(members["txt"], "label") if "txt" in members else None


def is_caption(members: Mapping[str, bytes]) -> bool:
    """Return whether the label would come from a `.txt` member, which may as well hold a sentence."""
    return "txt" in members and "cls" not in members and "json" not in members


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


def json_field(data: bytes, field: str) -> object:
    """Read one field of a `.json` member; None if it is absent."""
    return _json(data, field).get(field)


def json_names(data: bytes, field: str) -> list[str] | None:
    """Read the list `labels` or `box_labels` of a `.json` member, as written; None if it is absent.

    Raises:
        BadAnnotationError: it is no list of classes; the labels of an image are a multi-hot vector.
    """
    fields = _json(data, field)
    names = fields.get(field)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, (int, float, str)) for name in names):
        raise BadAnnotationError(field, f"{field} is not a list of classes")
    if broken := [name for name in names if isinstance(name, float) and not name.is_integer()]:
        raise BadAnnotationError(field, f"{field} contains {broken[0]}, which is no whole number and so no class index")
    if field == "labels" and names != fields.get("box_labels"):
        refuse_multi_hot(names)
    return list(map(str, names))


def json_texts(members: Mapping[str, bytes]) -> dict[str, str]:
    """Read the fields of a `.json` member that may name the class."""
    fields = _json(members["json"], "label") if "json" in members else {}
    return {name: text for name in columns_of_names(fields) if isinstance(text := fields[name], str)}


def json_metadata(members: Mapping[str, bytes], names: Sequence[str]) -> Metadata:
    """Read further fields of a `.json` member as text."""
    return metadata_of(_json(members["json"], "metadata"), names) if names and "json" in members else ()


def json_boxes(data: bytes, order: BoxOrder = "xyxy") -> Boxes | None:
    """Read `boxes` of a `.json` member: a list of four numbers each, by default [x0, y0, x1, y1]."""
    boxes = _json(data, "boxes").get("boxes")
    if boxes is None:
        return None
    if not isinstance(boxes, list) or not all(isinstance(box, list) for box in boxes):
        raise BadAnnotationError("boxes", "boxes is not a list of lists")
    return parse_boxes(boxes, order)


def xml_boxes(data: bytes) -> Boxes | None:
    """Read the `bndbox` elements of a PASCAL VOC `.xml` member."""
    elements = parse_xml(data).iter("bndbox")
    return tuple(parse_box([box.findtext(name) for name in ("xmin", "ymin", "xmax", "ymax")]) for box in elements)


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML of limited size; refuses document types, so that no entity can expand or read a file.

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
