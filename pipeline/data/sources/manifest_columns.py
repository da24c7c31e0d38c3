"""The columns of a manifest: which holds the path, the label, the boxes, and what a row says of its image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.sources.box_formats import parse_boxes
from pipeline.data.sources.cells import (
    boxes_cell,
    cell_of,
    label_cell,
    labels_cell,
    labels_in_order,
    metadata_of,
    one_hot,
)
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.other_names import plain
from pipeline.data.sources.shards import Boxes, Described
from pipeline.data.sources.tar import IMAGE_SUFFIXES
from pipeline.data.sources.wrong_rows import WrongRowError
from pipeline.errors import ConfigError, Mistakes, nearest
from pipeline.settings.data import BoxOrder, ColumnsConfig, DataConfig

_PATHS = (
    "path", "filepath", "imagepath", "imgpath", "file", "filename", "image", "img", "imagename", "imageid",
    "imageindex", "uri", "url",
)  # fmt: skip
"""Names of the column of paths, without spaces, underscores and case; earlier ones win."""
_LABELS = ("label", "classindex", "classid", "target", "class", "classname", "labelname", "category", "wnid", "synset")
_SEVERAL = ("labels", "classes", "findinglabels", "tags")
_BOXES = ("boxes", "bbox", "bboxes", "box")
_BOX_LABELS = ("boxlabels",)
_CORNERS: tuple[tuple[tuple[str, ...], BoxOrder], ...] = (
    (("x0", "y0", "x1", "y1"), "xyxy"),
    (("x1", "y1", "x2", "y2"), "xyxy"),
    (("xmin", "ymin", "xmax", "ymax"), "xyxy"),
    (("x", "y", "w", "h"), "xywh"),
    (("x", "y", "width", "height"), "xywh"),
    (("cx", "cy", "w", "h"), "cxcywh"),
    (("xcenter", "ycenter", "width", "height"), "cxcywh"),
)
"""Headers of four columns that are a box, and the format that they state."""


@dataclass(frozen=True)
class Roles:
    """The columns of a manifest by their role; `order` is the format of its boxes."""

    path: str
    key: str | None
    label: str | None
    labels: str | tuple[str, ...] | None
    boxes: str | tuple[str, ...] | None
    box_labels: str | None
    metadata: tuple[str, ...]
    order: BoxOrder
    separator: str | None
    relative: bool
    other_labels: tuple[str, ...] = ()
    """Further columns with known names of labels, if the run file does not name the one that counts."""

    def check_labels(self, record: Mapping[str, Any], classes: ClassTable) -> None:
        """Raise WrongRowError if two columns of labels name different classes."""
        label = None if self.label is None else label_cell(cell_of(record, self.label))
        index = None if label is None else classes.index(label)
        for name in self.other_labels:
            other = label_cell(record.get(name))
            known = None if other is None else classes.index(other)
            if index is not None and known is not None and known != index:
                raise WrongRowError(
                    f"column '{self.label}' says {label}, which is class {index}, but column '{name}' says {other}, "
                    f"which is class {known}; name the right one in data.columns.label"
                )

    def said(self, record: Mapping[str, Any]) -> Described:
        """Return what a row says of its image.

        Raises:
            BadAnnotationError: a cell is no label, no list of labels, or no box.
        """
        boxes = self._boxes(record)
        labels = self._labels(record)
        box_labels = None if self.box_labels is None or boxes is None else cell_of(record, self.box_labels)
        return Described(
            None if labels is not None or self.label is None else label_cell(cell_of(record, self.label)),
            labels,
            boxes,
            None if box_labels is None else labels_in_order(box_labels, self.separator),
            self.relative and boxes is not None,
            metadata_of(record, self.metadata),
        )

    def _labels(self, record: Mapping[str, Any]) -> tuple[str, ...] | None:
        if isinstance(self.labels, tuple):
            return one_hot(record, self.labels)
        of_boxes = None if self.box_labels is None else cell_of(record, self.box_labels)
        if self.labels is not None:
            return labels_cell(cell_of(record, self.labels), self.separator, of_boxes)
        cell = None if self.label is None else cell_of(record, self.label)
        return labels_cell(cell, self.separator, of_boxes) if self.separator or isinstance(cell, list) else None

    def _boxes(self, record: Mapping[str, Any]) -> Boxes | None:
        if isinstance(self.boxes, str):
            return boxes_cell(cell_of(record, self.boxes), self.order)
        cells = [record.get(name) for name in self.boxes or ()]
        if all(cell is None or cell == "" for cell in cells):
            return None
        return parse_boxes([cells], self.order)


def roles_of(location: str, names: Sequence[str], data: DataConfig) -> Roles:
    """Find the columns of a manifest: those that the run file names, else those with a known name.

    Raises:
        ConfigError: a named column is not there, or no column is known as that of the paths.
    """
    columns, mistakes, given = data.columns, Mistakes(), ColumnsConfig()
    found = _Finder(location, names)
    for role, name in (*columns.named().items(), *(("metadata", name) for name in data.metadata)):
        with mistakes.collecting():
            if role not in ("header", "image") and name != getattr(given, role, None):
                found.check(f"data.{role}" if role == "metadata" else f"data.columns.{role}", name)
    path = columns.path or (columns.image if columns.image != given.image else found.first(_PATHS))
    with mistakes.collecting():
        if path is None or path not in names:
            raise found.without_a_path(path)
    mistakes.raise_if_any()
    boxes, order = found.boxes(columns.boxes, data.boxes_format)
    labels = tuple(columns.labels) if isinstance(columns.labels, list) else columns.labels or found.first(_SEVERAL)
    label = columns.label if found.has(columns.label) else found.first(_LABELS)
    if columns.labels is None and label is not None:
        labels = None
    roles = Roles(
        str(path), columns.key if columns.key in names else None, label, labels, boxes,
        columns.box_labels or found.first(_BOX_LABELS), tuple(data.metadata), order, data.label_separator,
        data.boxes_relative,
    )  # fmt: skip
    found.refuse_repeated(roles)
    is_named = found.has(columns.label) and columns.label != given.label
    return roles if is_named else replace(roles, other_labels=found.others(label))


class _Finder:
    """Finds columns of a manifest by name."""

    def __init__(self, location: str, names: Sequence[str]) -> None:
        self._location, self._names = location, names
        self._by_plain = {plain(name): name for name in reversed(names)}

    def first(self, known: Sequence[str]) -> str | None:
        """Return the column with the first known name that there is."""
        return next((self._by_plain[name] for name in known if name in self._by_plain), None)

    def has(self, name: str) -> bool:
        """Return whether a column is there, or the outermost part of a name with dots."""
        return name in self._names or name.partition(".")[0] in self._names

    def others(self, label: str | None) -> tuple[str, ...]:
        """Return the other columns with known names of labels."""
        known = (self._by_plain[name] for name in _LABELS if name in self._by_plain)
        return tuple(name for name in known if name != label and label is not None)

    def refuse_repeated(self, roles: Roles) -> None:
        """Raise ConfigError if a column that is read has the name of another one."""
        used = {roles.path, roles.key, roles.label, roles.box_labels, *roles.metadata}
        repeated = [name for name, count in Counter(self._names).items() if count > 1 and name in used]
        if repeated:
            what = f"'{self._location}' has several columns '{repeated[0]}'"
            raise ConfigError.one("data.columns", what, "rename all but one of them")

    def check(self, where: str, wanted: str | Sequence[str]) -> None:
        """Raise ConfigError if a column that the run file names is not there."""
        missing = [name for name in ([wanted] if isinstance(wanted, str) else wanted) if not self.has(name)]
        if missing:
            what = f"'{self._location}' has no column {', '.join(missing[:5])}"
            raise ConfigError.one(where, what, nearest(missing[0], self._names))

    def without_a_path(self, wanted: str | None) -> ConfigError:
        """Return the error for a manifest without a column of paths."""
        there = ", ".join(self._names[:20])
        if wanted is not None:
            what = f"'{self._location}' has no column {wanted}"
            return ConfigError.one("data.columns.path", what, f"its columns: {there}")
        what = f"no column of '{self._location}' is known as that of the images: {there}"
        return ConfigError.one("data.columns", what, "name it: columns: {path: COLUMN}")

    def boxes(self, given: str | list[str], order: BoxOrder) -> tuple[str | tuple[str, ...] | None, BoxOrder]:
        """Return the columns of boxes and their format, which headers such as `w` and `h` state."""
        if not isinstance(given, str):
            return tuple(given), order
        if self.has(given):
            return given, order
        for header, stated in _CORNERS:
            if all(name in self._by_plain for name in header):
                return tuple(self._by_plain[name] for name in header), stated if stated != "xyxy" else order
        return self.first(_BOXES), order


def is_known(name: str) -> bool:
    """Return whether a name is known as that of a column of paths or labels."""
    return plain(name) in (*_PATHS, *_LABELS, *_SEVERAL)


def seems_a_path(cell: str) -> bool:
    """Return whether a cell is the name of an image rather than that of a column."""
    return "/" in cell or PurePosixPath(cell).suffix.lower().removeprefix(".") in IMAGE_SUFFIXES
