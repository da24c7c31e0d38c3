"""Formats of boxes: two corners, a corner and the size, or the centre and the size; in pixels or in shares."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.data.sources.shards import Box, Boxes
from pipeline.errors import ConfigError
from pipeline.settings.data import BoxOrder

ORDERS: tuple[BoxOrder, ...] = ("xyxy", "xywh", "cxcywh")
_SLACK = 1.001
"""Shares of a picture are rounded, so they may exceed it by this factor."""


class BadAnnotationError(ValueError):
    """A label or box that is present but invalid; it becomes a failure row with `code`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True)
class Form:
    """How annotations are written, as the run file says.

    Attributes:
        order, relative: the format of boxes.
        metadata: further fields of `.json` members that become metadata.
        separator: what stands between several labels in one text.
    """

    order: BoxOrder = "xyxy"
    relative: bool = False
    metadata: tuple[str, ...] = ()
    separator: str | None = None


PLAIN = Form()
"""What a run file says that says nothing of its annotations."""


def corners(box: Box, order: BoxOrder) -> Box:
    """Return the two corners (x0, y0, x1, y1) of a box."""
    a, b, c, d = box
    if order == "xywh":
        return a, b, a + c, b + d
    return (a - c / 2, b - d / 2, a + c / 2, b + d / 2) if order == "cxcywh" else box


def parse_boxes(rows: Iterable[Sequence[object]], order: BoxOrder) -> Boxes:
    """Convert rows of four values to boxes; other values become NaN, which `checked` rejects later."""
    return tuple(corners(parse_box(row), order) for row in rows)


def parse_box(values: Sequence[object]) -> Box:
    """Convert values to a box; anything but four numbers becomes NaN, which `checked` rejects later."""
    numbers = [_number(value) for value in values]
    x0, y0, x1, y1 = numbers if len(numbers) == 4 else [math.nan] * 4
    return x0, y0, x1, y1


def _number(value: object) -> float:
    try:
        return float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def checked(boxes: Boxes) -> Boxes:
    """Return the boxes; raises a BadAnnotationError if one is not finite or has swapped corners."""
    for box in boxes:
        x0, y0, x1, y1 = box
        if not all(map(math.isfinite, box)) or x0 > x1 or y0 > y1:
            raise BadAnnotationError("boxes", f"{box} is not four finite numbers with x0 <= x1 and y0 <= y1")
    return boxes


def in_pixels(boxes: Boxes | None, width: int, height: int) -> Boxes | None:
    """Return boxes in pixels, given boxes in shares of the width and height of their picture."""
    if boxes is None:
        return None
    return tuple((x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in boxes)


class FormatCheck:
    """Collects boxes as corners, and says in which way they contradict the format that they were read in."""

    def __init__(self, order: BoxOrder, *, relative: bool) -> None:
        self._order, self._relative = order, relative
        self.boxes = 0
        self._swapped = self._beyond = self._tiny = 0
        self._example = ""

    def add(self, name: str, boxes: Boxes) -> None:
        """Take the boxes of one image; those that are not four finite numbers are failures of their own."""
        for box in boxes:
            if not all(map(math.isfinite, box)):
                continue
            x0, y0, x1, y1 = box
            self.boxes += 1
            self._beyond += max(x1, y1) > _SLACK
            self._tiny += max(x1, y1) <= _SLACK
            if x1 < x0 or y1 < y0:
                self._swapped += 1
                self._example = self._example or f"{name}: {_written(box, self._order)}"

    def contradiction(self) -> str:
        """Say why the boxes cannot have the stated format; empty if they can."""
        if self._swapped:
            what = "the second corner before the first" if self._order == "xyxy" else "a negative width or height"
            return f"{self._swapped} of {self.boxes} boxes have {what}, for example {self._example}"
        if self._relative and self._beyond > self.boxes / 2:
            return f"{self._beyond} of {self.boxes} boxes reach beyond 1, so they are no shares of the picture"
        if not self._relative and self.boxes > 1 and self._tiny == self.boxes:
            return f"all {self.boxes} boxes lie within the first pixel, so they may be shares of the picture"
        return ""

    def raise_if_contradicted(self) -> None:
        """Raise ConfigError if the boxes cannot have the stated format."""
        if contradiction := self.contradiction():
            raise ConfigError.one("data.boxes_format", contradiction, self.hint())

    def hint(self) -> str:
        """Say what to set instead."""
        if self._swapped:
            others = " or ".join(order for order in ORDERS if order != self._order)
            return f"they were read as data.boxes_format: {self._order}; state what they are, such as {others}"
        wanted = "false" if self._relative else "true"
        return f"set data.boxes_relative: {wanted}"


def _written(box: Box, order: BoxOrder) -> str:
    """Write a box as it stands in the data."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    numbers = {
        "xyxy": box,
        "xywh": (x0, y0, width, height),
        "cxcywh": (x0 + width / 2, y0 + height / 2, width, height),
    }[order]
    return "[" + ", ".join(f"{number:g}" for number in numbers) + "]"
