"""Labels and boxes, from CSV files or from members of the sample itself.

An image may have several labels: `labels` of its `.json` member lists them, and `box_labels` gives the class of each
box.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

from pipeline.data.sources.box_formats import PLAIN, BadAnnotationError, Form, checked
from pipeline.data.sources.cells import NOTHING_FOUND, labels_cell
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import (
    is_caption,
    json_boxes,
    json_names,
    json_texts,
    label_text,
    xml_boxes,
)
from pipeline.data.sources.multi_hot import doubtful_pair, is_pair
from pipeline.data.sources.no_class import why_no_class
from pipeline.data.sources.other_names import contradiction
from pipeline.data.sources.row_finder import RowFinder
from pipeline.data.sources.shards import Boxes, Described

Value = TypeVar("Value")
Members = Mapping[str, bytes]

NO_LABEL = frozenset({"", "-1", "-1.0", "nan", "null", NOTHING_FOUND})
"""Cells, in lower case, that say that an image has no label, unless the table of classes has them."""
NOTHING = Described()
"""What is said of an image of which nothing is said."""


@dataclass(frozen=True)
class AnnotationFile:
    """A file of labels or boxes: where it is, and how many rows it has, of which some repeat others.

    A file of boxes may name the classes of its images, too.
    """

    kind: Literal["labels", "boxes"]
    path: str
    rows: int
    repeated: int = 0
    gives_labels: bool = False


@dataclass(frozen=True)
class Annotations:
    """Labels and boxes from CSV files, by image name; they take precedence over members of the sample."""

    classes: ClassTable = field(default_factory=ClassTable)
    labels: Mapping[str, str] = field(default_factory=dict)
    boxes: Mapping[str, Boxes] = field(default_factory=dict)
    folders: Mapping[str, "Annotations"] = field(default_factory=dict)
    """Annotations from files in a folder of images, by its path; they apply only to images in that folder."""
    label_rows: Mapping[str, str] | None = None
    """The row of each image whose name differs from that of its row; None if images become known while they are read.
    """
    box_rows: Mapping[str, str] | None = None
    needs_label: bool = False
    """Whether an image must have a label, so that text which is none is a failure."""
    reads_parts: bool = True
    """Whether the run reads the parts of images, so that invalid ones are failures."""
    changes: str = ""
    """Digest of the images that have another row than in earlier versions; empty if there are none."""
    digest_before: str = ""
    """The digest that earlier versions gave to what is read as they read it; empty if it is the same."""
    files: tuple[AnnotationFile, ...] = field(default=(), compare=False)
    described: Mapping[str, Described] = field(default_factory=dict)
    """What files of boxes with classes say of images, such as COCO's."""
    described_rows: Mapping[str, str] | None = None
    form: Form = PLAIN
    doubts_pairs: bool = False
    """Whether the lists [0, 1] and [1, 0] are failures, because they may be multi-hot vectors for two classes."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was left out of files of boxes, for the account of labels."""

    def label_of(self, key: str, members: Members, said: Described = NOTHING) -> int | None:
        """Return the class of an image: from CSV, else `.cls`, `.json` (field label) or `.txt`; None if it has none.

        Without any of these it is the label of `said`.

        Raises:
            BadAnnotationError: the label is neither a class index nor a known class, or the sample also names another.
        """
        text = self.label_text(key)
        given = (self._text_in(members) or said.label) if text is None else text
        if given is None or self.is_no_label(given):
            return None
        index = self._index(given)
        if text is None and (wrong := contradiction(index, json_texts(members), self.classes)):
            raise BadAnnotationError("label", f"the image has {wrong.text}")
        return index

    def _text_in(self, members: Members) -> str | None:
        """Return the label in the members of a sample; a caption that is no class is none, unless labels are needed."""
        text = label_text(members)
        is_sentence = text is not None and is_caption(members) and not self.needs_label
        return None if is_sentence and self.classes.index(text or "") is None else text

    def label_row(self, key: str) -> str | None:
        """Return the name of the row that gives the label of an image; None if there is none."""
        return self._row_of(key, self.labels, self.label_rows, self._label_finder)

    def box_row(self, key: str) -> str | None:
        """Return the name of the row that gives the boxes of an image; None if there is none."""
        return self._row_of(key, self.boxes, self.box_rows, self._box_finder)

    def _row_of(
        self, key: str, table: Collection[str], rows: Mapping[str, str] | None, finder: RowFinder
    ) -> str | None:
        if key in table:
            return key
        if rows is not None:
            return rows.get(key)
        return finder.find(key) if table else None

    def label_text(self, key: str) -> str | None:
        """Return the label of an image as a file writes it; None if no row applies to it."""
        row = self.label_row(key)
        return None if row is None else self.labels[row]

    def is_new(self, key: str) -> bool:
        """Return whether an image has rows that its name alone, as earlier versions compared it, does not point to."""
        rows = (self.label_row(key), self._label_finder), (self.box_row(key), self._box_finder)
        return any(row is not None and finder.by_name(key) is None for row, finder in rows)

    def is_no_label(self, text: str) -> bool:
        """Return whether a cell says that an image has no label."""
        return text.strip().lower() in NO_LABEL and self.classes.index(text) is None

    def labels_of(self, key: str, members: Members, said: Described = NOTHING) -> tuple[int, ...] | None:
        """Return all classes in `labels` of `.json`; None if there is no list, or if a CSV file gives the label.

        Without any label in the members they are the labels of `said`. A CSV file gives several with a separator.

        Raises:
            BadAnnotationError: one of them is neither a class index nor a known class.
        """
        text = self.label_text(key)
        if text is not None:
            names: Sequence[str] | None = labels_cell(text, self.form.separator) if self.form.separator else None
        else:
            names = json_names(members["json"], "labels") if "json" in members else None
        if text is None and names is None and said.labels is not None and self._text_in(members) is None:
            names = said.labels
        if self.doubts_pairs and names is not None and is_pair(names) and not self.box_labels_of(key, members, said):
            raise BadAnnotationError("label", doubtful_pair(names))
        return None if names is None else self._classes(names)

    def _classes(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the classes of an image without repeats."""
        return tuple(dict.fromkeys(self._index(name) for name in names if not self.is_no_label(name)))

    def box_labels_of(self, key: str, members: Members, said: Described = NOTHING) -> tuple[int, ...] | None:
        """Return the classes in `box_labels` of `.json`; None if there is no list, or if a CSV file gives the boxes.

        Raises:
            BadAnnotationError: one of them is neither a class index nor a known class.
        """
        if self._boxes_in_file(key) is not None:
            return None
        if said.boxes_xyxy is not None:
            return None if said.box_labels is None else tuple(map(self._index, said.box_labels))
        names = json_names(members["json"], "box_labels") if "json" in members else None
        return None if names is None else tuple(map(self._index, names))

    def _index(self, text: str) -> int:
        index = self.classes.index(text)
        if index is None:
            raise BadAnnotationError("label", why_no_class(text, self.classes))
        return index

    def boxes_of(self, key: str, members: Members, said: Described = NOTHING) -> Boxes | None:
        """Return the boxes of an image: from CSV, else `said`, `.json` (field boxes) or `.xml` (PASCAL VOC).

        Raises:
            BadAnnotationError: a box is not four finite numbers with x0 <= x1 and y0 <= y1.
        """
        boxes = self._boxes_in_file(key)
        if boxes is None:
            boxes = said.boxes_xyxy
        if boxes is None and "json" in members:
            boxes = json_boxes(members["json"], self.form.order)
        if boxes is None and "xml" in members:
            boxes = xml_boxes(members["xml"])
        return None if boxes is None else checked(boxes)

    def has_boxes(self, key: str, said: Described = NOTHING) -> bool:
        """Return whether a file gives boxes of an image, or `said` does."""
        return bool(self._boxes_in_file(key) or said.boxes_xyxy)

    def said_of(self, key: str) -> Described:
        """Return what files of boxes with classes say of an image."""
        row = self.described_row(key)
        return NOTHING if row is None else self.described[row]

    def described_row(self, key: str) -> str | None:
        """Return the name by which a file of boxes with classes knows an image; None if it does not."""
        return self._row_of(key, self.described, self.described_rows, self._described_finder)

    def relative_of(self, key: str, members: Members, said: Described = NOTHING) -> bool:
        """Return whether the boxes of an image are in shares of its width and height; those in `.xml` never are."""
        if self._boxes_in_file(key) is None and said.boxes_xyxy is not None:
            return said.relative
        return self.form.relative and ("xml" not in members or "json" in members)

    def _boxes_in_file(self, key: str) -> Boxes | None:
        row = self.box_row(key)
        return None if row is None else self.boxes[row]

    def or_else(self, other: "Annotations") -> "Annotations":
        """Return these annotations, completed by another table for images that are missing here."""
        return replace(
            self,
            labels=_completed(self.labels, other.labels),
            boxes=_completed(self.boxes, other.boxes),
            folders={**other.folders, **self.folders},
            files=(*self.files, *(file for file in other.files if file not in self.files)),
            described=_completed(self.described, other.described),
        )

    def within(self, folder: str) -> "Annotations":
        """Return the annotations for images of one folder, completed by those from files in the folder."""
        local = self.folders.get(folder, self)
        if local is self or not (self.labels or self.boxes or self.described):
            return local
        return replace(
            self.or_else(local),
            label_rows=local.label_rows,
            box_rows=local.box_rows,
            described_rows=local.described_rows,
        )

    def digest(self) -> str:
        """Hash the annotations, so that a run detects when they change."""
        if self.digest_before:
            return self.digest_before
        tables = (sorted(self.labels.items()), sorted(self.boxes.items()))
        folders = [annotations.digest() for annotations in self.folders.values()]
        described = [sorted(self.described.items())] if self.described else []
        content = repr((self.classes.names, self.classes.wnids, *tables, folders, *described))
        content += "".join(f" {key}" for key in (self.changes, *self._new_words()) if key)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def _new_words(self) -> list[str]:
        """List the labels that earlier versions did not understand."""
        return sorted(
            {
                text
                for text in self.labels.values()
                if text.strip() and (self.is_no_label(text) or self.classes.is_alias(text))
            }
        )

    @cached_property
    def _label_finder(self) -> RowFinder:
        return RowFinder(self.labels)

    @cached_property
    def _box_finder(self) -> RowFinder:
        return RowFinder(self.boxes)

    @cached_property
    def _described_finder(self) -> RowFinder:
        return RowFinder(self.described)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what each process derives from the tables."""
        return {one.name: vars(self)[one.name] for one in fields(self)}


def _completed(table: Mapping[str, Value], other: Mapping[str, Value]) -> Mapping[str, Value]:
    if not table or not other:
        return table or other
    return {**table, **{name: value for name, value in other.items() if name not in table}}
