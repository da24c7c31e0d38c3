"""Finds the labels and boxes of the images in one folder: from files, else from its sub-folders."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.data.sources.annotations import Annotations
from pipeline.data.sources.class_folders import FolderClasses, classes_of_folders, numbered_folders
from pipeline.data.sources.fingerprint import digest
from pipeline.data.sources.keys import Matching, match
from pipeline.data.sources.label_files import contradictions, load_annotations
from pipeline.data.sources.row_finder import row_by_name, row_stems
from pipeline.settings.data import Folders


@dataclass(frozen=True)
class FolderLabels:
    """One folder of images: its annotations, and how its images match the rows of each file."""

    annotations: Annotations
    keys: Sequence[str]
    classes: FolderClasses
    labels: Mapping[str, Matching]
    boxes: Mapping[str, Matching]
    described: Mapping[str, Matching]
    """How its images match the names in files of boxes with classes."""

    def matching(self, kind: Literal["labels", "boxes"], where: str) -> Matching:
        """Return how its images match a file: the one that the run file names (given), or its own (local)."""
        of_boxes = self.described if where in self.described else self.boxes
        return (self.labels if kind == "labels" else of_boxes).get(where, Matching())

    @classmethod
    def of(
        cls,
        root: str,
        keys: Sequence[str],
        given: Annotations,
        outputs: int | None,
        wanted: Folders,
    ) -> "FolderLabels":
        """Find the labels and boxes of a folder; a label file beats sub-folders.

        Args:
            root, keys: the folder, and its images as paths within it.
            given: what the files say that the run file names.
            outputs: the model's number of classes, if it is known.
            wanted: whether sub-folders are classes, as `data.folders`.

        Raises:
            ConfigError: a file is unreadable or lacks a column, files contradict each other, or the class table has
                only some of the sub-folders.
        """
        local = _files_in(root, given)
        labels = _matchings(given.labels, local.labels, keys, root)
        boxes = _matchings(given.boxes, local.boxes, keys, root)
        described = _matchings(given.described, local.described, keys, root)
        _refuse_disagreement(given, local, labels, root)
        files = (*given.files, *local.files)
        has_file = bool(given.labels or local.labels) or any(f.kind == "labels" or f.gives_labels for f in files)
        classes = classes_of_folders(keys, given.classes, outputs, "ignore" if has_file else wanted)
        if has_file and classes.why:
            classes = FolderClasses(why=f"{classes.why}, because a file gives the labels")
        both = given.or_else(local)
        label_rows, box_rows = _rows(labels), _rows(boxes)
        changes = [*_changes(both.labels, label_rows, keys), *_changes(both.boxes, box_rows, keys)]
        annotations = replace(
            local,
            labels=local.labels or classes.labels,
            label_rows={key: row for key, row in label_rows.items() if key != row},
            box_rows={key: row for key, row in box_rows.items() if key != row},
            described_rows={key: row for key, row in _rows(described).items() if key != row},
            changes=digest(repr(changes).encode("utf-8", "surrogatepass")) if changes else "",
            needs_label=given.needs_label,
        )
        if given.labels and not local.labels and all(key in given.labels for key in keys):
            before = replace(annotations, labels=numbered_folders(keys, given.classes)).digest()
            annotations = replace(annotations, digest_before=before)
        return cls(annotations, keys, classes, labels, boxes, described)


def _files_in(root: str, given: Annotations) -> Annotations:
    """Read the files of labels and boxes in a folder, unless the run file names them."""
    named = {str(Path(file.path).absolute()) for file in given.files if "://" not in file.path}
    paths = {kind: Path(root, f"{kind}.csv") for kind in ("labels", "boxes")}
    found = {
        kind: str(path) if path.is_file() and str(path.absolute()) not in named else None
        for kind, path in paths.items()
    }
    boxes = None if given.described else found["boxes"]
    return load_annotations(found["labels"], boxes, given.classes, given.form)


def _matchings(given: Collection[str], local: Collection[str], keys: Sequence[str], root: str) -> dict[str, Matching]:
    """Match the images of a folder with the file that the run file names, and with that in the folder."""
    tables = {"given": given, "local": local}
    return {name: match(table, keys, root) for name, table in tables.items() if table}


def _rows(matchings: Mapping[str, Matching]) -> dict[str, str]:
    """Return the row of each image; a file that the run file names goes first."""
    rows = dict(matchings["local"].row_of) if "local" in matchings else {}
    return rows | (matchings["given"].row_of if "given" in matchings else {})


def _refuse_disagreement(given: Annotations, local: Annotations, labels: Mapping[str, Matching], root: str) -> None:
    for name, table in (("given", given), ("local", local)):
        if name in labels:
            pairs = [((one, table.labels[one]), (two, table.labels[two])) for one, two in labels[name].conflicts]
            contradictions(path_of(table, root), pairs, given.classes, len(table.labels))
    if len(labels) == 2:
        mine, theirs = labels["given"].row_of, labels["local"].row_of
        pairs = [((key, given.labels[mine[key]]), (key, local.labels[theirs[key]])) for key in mine if key in theirs]
        contradictions(f"{path_of(given, root)}' and '{path_of(local, root)}", pairs, given.classes, len(pairs))


def path_of(table: Annotations, root: str) -> str:
    """Return the label file that a table was read from."""
    return next((file.path for file in table.files if file.kind == "labels"), f"{root}/labels.csv")


def _changes(rows: Collection[str], row_of: Mapping[str, str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """List the images whose row is another one than earlier versions found, which went by names alone."""
    if not rows or all(key in rows for key in keys):
        return []
    stems = row_stems(rows) if any("." not in key for key in keys) else {}
    return [(key, row_of.get(key, "")) for key in keys if row_by_name(rows, stems, key) != row_of.get(key)]
