"""Labels and boxes, from CSV files or from members of the sample itself.

An image may have several labels: `labels` of its `.json` member lists them, and `box_labels` gives the class of each
box.
"""

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pipeline.data.sources.box_formats import PLAIN, BadAnnotationError, Form, FormatCheck, checked, corners, parse_box
from pipeline.data.sources.cells import NOTHING_FOUND, labels_cell
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.members import json_boxes, json_metadata, json_names, label_text, xml_boxes
from pipeline.data.sources.objects import read_text
from pipeline.data.sources.shards import Box, Boxes, Described, Failure, Item, Sample, Shard, joined
from pipeline.errors import ConfigError

Value = TypeVar("Value")
Members = Mapping[str, bytes]

NOTHING = Described()
"""What is said of an image of which nothing is said."""
BOX_COLUMNS = ("filename", "x0", "y0", "x1", "y1")
KAGGLE_COLUMNS = ("ImageId", "PredictionString")


@dataclass(frozen=True)
class Annotations:
    """Labels and boxes from CSV files, by image name; they take precedence over members of the sample.

    `label_stems` and `box_stems` are the same tables by name up to the first dot, because keys of tars have no suffix.
    """

    classes: ClassTable = field(default_factory=ClassTable)
    labels: Mapping[str, str] = field(default_factory=dict)
    boxes: Mapping[str, Boxes] = field(default_factory=dict)
    folders: Mapping[str, "Annotations"] = field(default_factory=dict)
    """Annotations from files in a folder of images, by its path; they apply only to images in that folder."""
    label_stems: Mapping[str, str] = field(default_factory=dict)
    box_stems: Mapping[str, Boxes] = field(default_factory=dict)
    described: Mapping[str, Described] = field(default_factory=dict)
    """What files of boxes with classes say of images, such as COCO's."""
    described_stems: Mapping[str, Described] = field(default_factory=dict)
    form: Form = PLAIN
    notes: tuple[str, ...] = ()
    """What was left out of files of boxes, for the account of labels."""

    def label_of(self, key: str, members: Mapping[str, bytes], said: Described = NOTHING) -> int | None:
        """Return the class of an image: from CSV, else `.cls`, `.json` (field label) or `.txt`; None if it has none.

        Without any of these it is the label of `said`.

        Raises:
            BadAnnotationError: the label is neither a class index nor a known class.
        """
        text = _find(self.labels, self.label_stems, key)
        if text is None:
            text = label_text(members) or said.label
        return None if text is None or not text.strip() else self._index(text)

    def labels_of(self, key: str, members: Mapping[str, bytes], said: Described = NOTHING) -> tuple[int, ...] | None:
        """Return all classes in `labels` of `.json`; None if there is no list, or if a CSV file gives the label.

        Without any label in the members they are the labels of `said`.

        Raises:
            BadAnnotationError: one of them is neither a class index nor a known class.
        """
        text = _find(self.labels, self.label_stems, key)
        if text is not None:
            return self._classes(labels_cell(text, self.form.separator)) if self.form.separator else None
        names: Sequence[str] | None = json_names(members["json"], "labels") if "json" in members else None
        if names is None and said.labels is not None and label_text(members) is None:
            names = said.labels
        return None if names is None else self._classes(names)

    def _classes(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the classes of an image without repeats; "No Finding" is none, unless the table names it."""
        known = (name for name in names if name.lower() != NOTHING_FOUND or self.classes.index(name) is not None)
        return tuple(dict.fromkeys(map(self._index, known)))

    def box_labels_of(self, key: str, members: Members, said: Described = NOTHING) -> tuple[int, ...] | None:
        """Return the classes in `box_labels` of `.json`; None if there is no list, or if a CSV file gives the boxes.

        Raises:
            BadAnnotationError: one of them is neither a class index nor a known class.
        """
        if _find(self.boxes, self.box_stems, key) is not None:
            return None
        if said.boxes_xyxy is not None:
            return None if said.box_labels is None else tuple(map(self._index, said.box_labels))
        names = json_names(members["json"], "box_labels") if "json" in members else None
        return None if names is None else tuple(map(self._index, names))

    def _index(self, text: str) -> int:
        index = self.classes.index(text)
        if index is None:
            raise BadAnnotationError("label", f"'{text[:80]}' is neither a class index nor a known class")
        return index

    def boxes_of(self, key: str, members: Mapping[str, bytes], said: Described = NOTHING) -> Boxes | None:
        """Return the boxes of an image: from CSV, else `said`, `.json` (field boxes) or `.xml` (PASCAL VOC).

        Raises:
            BadAnnotationError: a box is not four finite numbers with x0 <= x1 and y0 <= y1.
        """
        boxes = _find(self.boxes, self.box_stems, key)
        if boxes is None:
            boxes = said.boxes_xyxy
        if boxes is None and "json" in members:
            boxes = json_boxes(members["json"], self.form.order)
        if boxes is None and "xml" in members:
            boxes = xml_boxes(members["xml"])
        return None if boxes is None else checked(boxes)

    def said_of(self, key: str) -> Described:
        """Return what files of boxes with classes say of an image."""
        return _find(self.described, self.described_stems, key) or NOTHING

    def relative_of(self, key: str, members: Mapping[str, bytes], said: Described = NOTHING) -> bool:
        """Return whether the boxes of an image are in shares of its width and height; those in `.xml` never are."""
        if _find(self.boxes, self.box_stems, key) is None and said.boxes_xyxy is not None:
            return said.relative
        return self.form.relative and ("xml" not in members or "json" in members)

    def or_else(self, other: "Annotations") -> "Annotations":
        """Return these annotations, completed by another table for images that are missing here."""
        return Annotations(
            self.classes,
            {**other.labels, **self.labels},
            {**other.boxes, **self.boxes},
            {**other.folders, **self.folders},
            {**other.label_stems, **self.label_stems},
            {**other.box_stems, **self.box_stems},
            {**other.described, **self.described},
            {**other.described_stems, **self.described_stems},
            self.form,
            self.notes,
        )

    def within(self, folder: str) -> "Annotations":
        """Return the annotations for images of one folder, completed by those from files in the folder."""
        local = self.folders.get(folder, self)
        return self.or_else(local) if self.labels or self.boxes or self.described else replace(local, form=self.form)

    def digest(self) -> str:
        """Hash the annotations, so that a run detects when they change."""
        tables = (sorted(self.labels.items()), sorted(self.boxes.items()))
        folders = [annotations.digest() for annotations in self.folders.values()]
        described = [sorted(self.described.items())] if self.described else []
        content = repr((self.classes.names, self.classes.wnids, *tables, folders, *described))
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def split_name(path: str) -> tuple[str, str]:
    """Split a member name into key and suffix at the first dot of its base name (suffix in lower case)."""
    folder, slash, base = path.removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def load_annotations(
    labels_csv: str | None, boxes_csv: str | None, classes: ClassTable, form: Form = PLAIN
) -> Annotations:
    """Read the label and box CSV files that a run file names.

    Labels: `filename,class_index`. Boxes: `filename,x0,y0,x1,y1`, one row per box, or Kaggle's
    `LOC_val_solution.csv` (`ImageId,PredictionString`), which also gives labels.

    Raises:
        ConfigError: a file is missing or lacks its columns.
    """
    labels: dict[str, str] = {}
    boxes: dict[str, Boxes] = {}
    if boxes_csv is not None:
        labels, boxes = _read_boxes(boxes_csv, classes, form)
    if labels_csv is not None:
        rows = read_csv("data.labels", labels_csv, ("filename", "class_index"))
        labels = {row["filename"]: row["class_index"] for row in rows}
    return Annotations(classes, labels, boxes, label_stems=stems_of(labels), box_stems=stems_of(boxes), form=form)


def annotated(
    key: str, shard: Shard, image: bytes, members: Members, annotations: Annotations, said: Described | None = None
) -> Item:
    """Return a sample with its labels and boxes, or a failure if one of these is invalid.

    Args:
        key, shard, image: the image.
        members: other files of the sample, by suffix.
        annotations: labels and boxes from files.
        said: what a row of a manifest or of a Parquet file says of the image.
    """
    found = joined(said, annotations.said_of(key))
    try:
        return _annotate(Sample(key, shard.name, image, None, None), members, annotations, found)
    except BadAnnotationError as error:
        return Failure(key, shard.name, "read", error.code, str(error), found.metadata)


def _annotate(sample: Sample, members: Mapping[str, bytes], annotations: Annotations, said: Described) -> Sample:
    """Add labels, boxes and metadata to a sample."""
    given = (sample.key, members, said)
    labels, boxes = annotations.labels_of(*given), annotations.boxes_of(*given)
    box_labels = annotations.box_labels_of(*given)
    label = annotations.label_of(*given) if labels is None else labels[0] if len(labels) == 1 else None
    if box_labels is not None and len(box_labels) != len(boxes or ()):
        raise BadAnnotationError("boxes", f"{len(box_labels)} box_labels for {len(boxes or ())} boxes")
    if boxes and box_labels is None and labels is not None and len(labels) > 1:
        raise BadAnnotationError("boxes", f"the image has {len(labels)} labels, but its boxes have no box_labels")
    return replace(
        sample, label=label, boxes_xyxy=boxes, labels=labels or (), box_labels=box_labels,
        boxes_relative=boxes is not None and annotations.relative_of(*given),
        metadata=said.metadata or json_metadata(members, annotations.form.metadata),
    )  # fmt: skip


def _find(table: Mapping[str, Value], stems: Mapping[str, Value], key: str) -> Value | None:
    """Return the entry of an image; an entry applies only to the file that it names.

    A key with a suffix is a file. Its entry is its full name, or an id: its name (or base name) without the suffix.
    A key without a suffix comes from a tar. Its entry is the key, or the original file, with or without its folder.
    """
    stem, dot, _ = key.rpartition(".") if "." in key.rpartition("/")[2] else (key, "", "")
    names = (stem, stem.rpartition("/")[2])
    tables = (table,) if dot else (table, stems)
    if key in table:
        return table[key]
    return next((entries[name] for name in names for entries in tables if name in entries), None)


def read_csv(where: str, path: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Read the rows of a CSV file at a path or a URL, and check that it has the given columns.

    Raises:
        ConfigError: the file is missing, has no rows, or lacks a column.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(where, path), newline="")))
    except csv.Error as error:
        raise ConfigError.one(where, f"cannot read '{path}': {error}") from None
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise ConfigError.one(where, f"'{path}' has no column {', '.join(missing)}", f"expected {','.join(columns)}")
    return [{name: value or "" for name, value in row.items() if name is not None} for row in rows]


def stems_of(table: Mapping[str, Value]) -> dict[str, Value]:
    """Return the table by name up to the first dot; the first of several rows is used."""
    return {split_name(name)[0]: value for name, value in reversed(list(table.items()))}


def _read_boxes(path: str, classes: ClassTable, form: Form) -> tuple[dict[str, str], dict[str, Boxes]]:
    """Read a box file in either format; Kaggle's also gives labels."""
    first = read_csv("data.boxes", path, ())[:1]
    if first and "PredictionString" in first[0]:
        return _from_kaggle(read_csv("data.boxes", path, KAGGLE_COLUMNS), classes)
    return {}, _from_rows(read_csv("data.boxes", path, BOX_COLUMNS), form)


def _from_rows(rows: list[dict[str, str]], form: Form) -> dict[str, Boxes]:
    boxes: dict[str, list[Box]] = defaultdict(list)
    check = FormatCheck(form.order, relative=form.relative)
    for row in rows:
        box = corners(parse_box([row["x0"], row["y0"], row["x1"], row["y1"]]), form.order)
        check.add(row["filename"], (box,))
        boxes[row["filename"]].append(box)
    check.raise_if_contradicted()
    return {name: tuple(image_boxes) for name, image_boxes in boxes.items()}


def _from_kaggle(rows: list[dict[str, str]], classes: ClassTable) -> tuple[dict[str, str], dict[str, Boxes]]:
    """Read rows like `ILSVRC2012_val_00048981,n03995372 85 1 499 272 n03995372 ...`."""
    fields = {row["ImageId"]: row["PredictionString"].split() for row in rows}
    boxes = {
        key: tuple(parse_box(values[i + 1 : i + 5]) for i in range(0, len(values), 5)) for key, values in fields.items()
    }
    index = _wnid_index({values[0] for values in fields.values() if values}, classes)
    return {key: index[values[0]] for key, values in fields.items() if values}, boxes


def _wnid_index(wnids: set[str], classes: ClassTable) -> dict[str, str]:
    """Return the class index of each WordNet id: from the class table, else by sorted order if there are 1,000."""
    known = {wnid: classes.index(wnid) for wnid in wnids}
    if None not in known.values():
        return {wnid: str(index) for wnid, index in known.items()}
    if len(wnids) == 1000:  # ImageNet numbers its classes by sorted WordNet id
        return {wnid: str(index) for index, wnid in enumerate(sorted(wnids))}
    raise ConfigError.one(
        "data.classes",
        "the box file contains WordNet ids that the class table does not contain",
        "give a CSV with columns class_index, class_name, wnid",
    )
