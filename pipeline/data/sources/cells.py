"""Cells of tables: labels, lists of labels, and boxes, as people and libraries write them."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.sources.box_formats import BadAnnotationError, parse_boxes
from pipeline.data.sources.multi_hot import multi_hot_text, refuse_multi_hot
from pipeline.data.sources.shards import Boxes, Metadata
from pipeline.settings.data import BoxOrder

NO_LABEL = ("", "-1", "nan", "null")
"""Texts that mean that an image has no label, in lower case."""
NOTHING_FOUND = "no finding"
"""What datasets of several labels write for none of them; a class if the table of classes names it."""
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "-1", "-1.0", "", "false", "no", "nan")


def cell_of(record: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - what a table holds
    """Return the cell of a column; dots name a field inside of it, such as `objects.bbox`."""
    if name in record:
        return record[name]
    outer, dot, inner = name.partition(".")
    found = record.get(outer) if dot else None
    return cell_of(found, inner) if isinstance(found, dict) else None


def label_cell(cell: object) -> str | None:
    """Return a label as written; None for an empty cell, null, NaN and -1. Whole floats become integers."""
    if isinstance(cell, float):  # pandas stores integers with missing values as floats
        cell = None if math.isnan(cell) else int(cell) if cell.is_integer() else cell
    text = "" if cell is None else str(cell).strip()
    head, point, zeros = text.partition(".")
    if point and zeros and not zeros.strip("0") and head.removeprefix("-").isdigit():
        text = head
    return None if text.lower() in NO_LABEL else text


def labels_cell(cell: object, separator: str | None, of_boxes: object = None) -> tuple[str, ...]:
    """Return the labels in a cell: a list, a JSON list, or a text in which a separator stands between them.

    Args:
        cell, separator: the cell, and what stands between labels in a text.
        of_boxes: the classes of the boxes; where the cell repeats them, it may name a class for each box.

    Raises:
        BadAnnotationError: the cell is neither, or is a multi-hot vector.
    """
    is_of_boxes = cell is not None and cell == of_boxes
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = _json(cell, "labels")
    if isinstance(cell, (list, tuple)):
        parts = list(cell)
    else:
        text = label_cell(cell) or ""
        parts = text.split(separator) if separator else [text]
    if not is_of_boxes:
        refuse_multi_hot(parts)
    found = [label_cell(part) for part in parts]
    return tuple(dict.fromkeys(label for label in found if label is not None))


def labels_in_order(cell: object, separator: str | None) -> tuple[str, ...]:
    """Return the class of each box; unlike the classes of an image, they repeat."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        cell = _json(cell, "box_labels")
    if isinstance(cell, (list, tuple)):
        return tuple(label_cell(inner) or "" for inner in cell)
    return tuple(part.strip() for part in str(cell).split(separator or " "))


def one_hot(record: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the columns whose cell says yes.

    Raises:
        BadAnnotationError: a cell is neither yes nor no.
    """
    found = []
    for name in columns:
        text = str("" if record.get(name) is None else record[name]).strip().lower()
        if text in _YES:
            found.append(name)
        elif text not in _NO:
            raise BadAnnotationError("label", f"column '{name}' contains '{text[:40]}', which is neither 0 nor 1")
    return tuple(found)


def boxes_cell(cell: object, order: BoxOrder) -> Boxes | None:
    """Return the boxes in a cell: a list of lists of four numbers, or one such list, also as JSON.

    Raises:
        BadAnnotationError: the cell is no such list.
    """
    if isinstance(cell, str):
        cell = _json(cell, "boxes") if cell.strip().startswith("[") else cell.strip() or None
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if not isinstance(cell, (list, tuple)):
        raise BadAnnotationError("boxes", f"'{str(cell)[:40]}' is no list of boxes")
    rows = [cell] if cell and not isinstance(cell[0], (list, tuple)) else cell
    if not all(isinstance(row, (list, tuple)) for row in rows):
        raise BadAnnotationError("boxes", "boxes is not a list of lists")
    return parse_boxes(rows, order)


def metadata_of(fields: Mapping[str, Any], names: Sequence[str]) -> Metadata:
    """Return further columns as text, without those that are missing, null, NaN or empty."""
    known = ((name, cell_of(fields, name)) for name in names)
    return tuple(
        (name, sys.intern(_text(value))) for name, value in known if value not in (None, "") and value == value
    )


def _text(value: object) -> str:
    if isinstance(value, (bool, int, float, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _json(text: str, code: str) -> object:
    """Parse a list that was written as JSON, or as Python prints a list of texts."""
    for written in (text, text.replace("'", '"')):
        try:
            return json.loads(written)
        except (ValueError, RecursionError):
            continue
    if code == "labels" and (sentence := multi_hot_text(text)):
        raise BadAnnotationError("label", f"'{text[:40]}' {sentence}")
    raise BadAnnotationError(code, f"'{text[:40]}' is not JSON")
