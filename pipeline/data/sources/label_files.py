"""Reads the label and box files that a run file names, or that lie in a folder of images."""

from collections import defaultdict
from collections.abc import Iterable

from pipeline.data.sources.annotations import NO_LABEL, AnnotationFile, Annotations
from pipeline.data.sources.box_files import read_described
from pipeline.data.sources.box_formats import PLAIN, Form, FormatCheck, corners, parse_box
from pipeline.data.sources.box_names import BoxFile
from pipeline.data.sources.cells import labels_cell
from pipeline.data.sources.classes import ClassTable
from pipeline.data.sources.csv_rows import read_csv, read_rows
from pipeline.data.sources.other_names import agreeing, columns_of_names
from pipeline.data.sources.shards import Box, Boxes
from pipeline.data.sources.wrong_rows import WrongRows
from pipeline.errors import ConfigError

BOX_COLUMNS = ("filename", "x0", "y0", "x1", "y1")
KAGGLE_COLUMNS = ("ImageId", "PredictionString")


def load_annotations(
    labels_csv: str | None, boxes_csv: str | None, classes: ClassTable, form: Form = PLAIN
) -> Annotations:
    """Read the label and box files that a run file names, or that lie in a folder of images.

    Labels: `filename,class_index`; further columns with names of classes must agree with it.
    Boxes: `filename,x0,y0,x1,y1`, one row per box, or Kaggle's
    `LOC_val_solution.csv` (`ImageId,PredictionString`), which also gives labels, or any that `read_described` reads.

    Raises:
        ConfigError: a file is missing or lacks its columns, columns of labels contradict each other, or boxes
            contradict their format.
    """
    labels: dict[str, str] = {}
    boxes: dict[str, Boxes] = {}
    files: list[AnnotationFile] = []
    described = None if boxes_csv is None else read_described(boxes_csv, classes, form)
    if boxes_csv is not None and described is not None:
        names_classes = any(said.label is not None or said.labels for said in described.images.values())
        files.append(AnnotationFile("boxes", boxes_csv, len(described.images), gives_labels=names_classes))
    elif boxes_csv is not None:
        labels, boxes, rows = _read_boxes(boxes_csv, classes, form)
        files.append(AnnotationFile("boxes", boxes_csv, rows, gives_labels=bool(labels)))
    if labels_csv is not None:
        cells = read_rows("data.labels", labels_csv, ("filename", "class_index"), columns_of_names)
        labels, rows = unique_labels(labels_csv, agreeing(labels_csv, cells, classes), classes)
        _check_lists(labels_csv, labels, form.separator)
        files.append(AnnotationFile("labels", labels_csv, rows, rows - len(labels)))
    found = described or BoxFile({})
    return Annotations(classes, labels, boxes, files=tuple(files), described=found.images, notes=found.notes, form=form)


def _check_lists(path: str, labels: dict[str, str], separator: str | None) -> None:
    """Raise ConfigError if a cell that may hold several labels holds something else, such as a multi-hot vector."""
    if separator is None:
        return
    wrong = WrongRows("data.labels", path)
    for name, text in labels.items():
        with wrong.collecting(f"'{name}'"):
            labels_cell(text, separator)
    wrong.raise_if_any()


def unique_labels(path: str, pairs: Iterable[tuple[str, ...]], classes: ClassTable) -> tuple[dict[str, str], int]:
    """Return the labels by image, and the number of rows; rows that agree, or have no label, count once.

    Raises:
        ConfigError: rows of one image contradict each other.
    """
    labels: dict[str, str] = {}
    again: list[tuple[Row, Row]] = []
    known: dict[str, str] = {}
    rows = 0
    for name, given in pairs:
        rows += 1
        text = known.setdefault(given, given)  # each label is kept once, not once a row
        before = labels.get(name)
        if before is not None and before != text:
            again.append(((name, before), (name, text)))
        if before is None or text.strip().lower() not in NO_LABEL:
            labels[name] = text
    contradictions(path, again, classes, len(labels))
    return labels, rows


Row = tuple[str, str]
"""Image and label, as written."""


def contradictions(path: str, pairs: Iterable[tuple[Row, Row]], classes: ClassTable, of: int) -> None:
    """Raise ConfigError if two rows of one image, in one file or in two, have different labels.

    Args:
        path: the file or files.
        pairs: the rows that belong to the same image.
        classes: the class table, in which a class may have several names.
        of: number of images in the file.
    """
    wrong = {
        one[0]: f"'{one[0]}' is {one[1] or 'nothing'}, and also {two[1]}"
        for one, two in pairs
        if differ(one[1], two[1], classes)
    }
    if wrong:
        examples = "; ".join([*wrong.values()][:3])
        raise ConfigError.one(
            "data.labels",
            f"'{path}': rows contradict each other about {len(wrong)} of {of} images: {examples}",
            "keep one label for each image",
        )


def differ(one: str, other: str, classes: ClassTable) -> bool:
    """Return whether two labels contradict each other: both are labels, and of different classes."""
    plain = [text.strip() for text in (one, other)]
    if plain[0] == plain[1] or any(text.lower() in NO_LABEL for text in plain):
        return False
    first, second = (classes.index(text) for text in plain)
    return first is None or first != second


def _read_boxes(path: str, classes: ClassTable, form: Form) -> tuple[dict[str, str], dict[str, Boxes], int]:
    """Read a box file in either format; Kaggle's also gives labels."""
    rows = read_csv("data.boxes", path, ())
    if rows and "PredictionString" in rows[0]:
        return (*_from_kaggle(read_csv("data.boxes", path, KAGGLE_COLUMNS), classes), len(rows))
    return {}, _from_rows(read_csv("data.boxes", path, BOX_COLUMNS), form), len(rows)


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
