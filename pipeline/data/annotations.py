"""Collects the labels, boxes and classes of a run's images, and accounts for where each of them comes from."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.data.account import FileAccount, Inside, LabelAccount
from pipeline.data.folder_labels import FolderLabels
from pipeline.data.ignored import ignored_files
from pipeline.data.inputs import image_suffixes
from pipeline.data.look import Look, look
from pipeline.data.sources import Reading, Shard
from pipeline.data.sources.annotations import AnnotationFile, Annotations
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.keys import Matching
from pipeline.data.sources.label_files import load_annotations
from pipeline.data.sources.shards import clean_text
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig
from pipeline.settings.run_file import RunConfig
from pipeline.settings.targets import TargetRules

_EXAMPLES = 3


@dataclass(frozen=True)
class Collected:
    """The labels and boxes of a run, before anything is said about them.

    Attributes:
        annotations: labels and boxes, and the class table of the run.
        given: those of the files that the run file names.
        folders: what is known of each folder of images.
    """

    annotations: Annotations
    given: Annotations
    folders: Mapping[str, FolderLabels]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the classes by index; empty if nothing names them."""
        of_folders = (folder.classes.names for folder in self.folders.values())
        return self.given.classes.names or next((names for names in of_folders if names), ())


@dataclass(frozen=True)
class Described:
    """The labels and boxes of a run, and what there is to say about them.

    Attributes:
        annotations: labels and boxes, and the class table of the run.
        account: where they come from, without the counts of classes.
        class_names: names of the classes by index; empty if nothing names them.
        folder_names: of each folder of images, the sub-folder of each class.
    """

    annotations: Annotations
    account: LabelAccount
    class_names: tuple[str, ...] = ()
    folder_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def read_annotations(config: RunConfig, shards: Sequence[Shard]) -> Annotations:
    """Collect the labels, boxes and classes of images whose run is done, or is none."""
    return collect(config.data, shards).annotations


def collect(
    data: DataConfig, shards: Sequence[Shard], outputs: int | None = None, rules: TargetRules | None = None
) -> Collected:
    """Collect labels, boxes and classes: from the files named in the run file, else from the folders of images.

    Args:
        data: the section of the run file.
        shards: what it names.
        outputs: the model's number of classes, which tells whether sub-folders are classes; None if it is not known.
        rules: what is explained; if this is the label, text that is no label is a failure.

    Raises:
        ConfigError: a file is unreadable, lacks a column, or contradicts itself, another one, or the class table.
    """
    given = load_annotations(data.labels, data.boxes, load_classes(data.classes))
    given = replace(given, needs_label=rules is not None and rules.need_label)
    folders = {
        root: FolderLabels.of(root, members, given, outputs, data.folders) for root, members in _members(shards).items()
    }
    annotations = replace(given, folders={root: folder.annotations for root, folder in folders.items()})
    return Collected(annotations, given, folders)


def describe(
    data: DataConfig, shards: Sequence[Shard], outputs: int | None = None, rules: TargetRules | None = None
) -> Described:
    """Collect labels, boxes and classes as `collect` does, and account for them.

    Tars and Parquet files, whose labels lie inside of them, are looked into.
    """
    found = collect(data, shards, outputs, rules)
    annotations = found.annotations
    others = [shard for shard in shards if shard.kind != "folder"]
    seen = Look()
    if others:
        seen = look(others, Reading(annotations, data.columns.model_dump(), suffixes=image_suffixes(data)))
        if any(map(annotations.is_new, seen.keys)):
            annotations = replace(annotations, changes="rows by paths")
    account = _account(data, found, len(others), seen)
    account = replace(account, ignored=_ignored(shards, account))
    folder_names = {
        root: {index: name for name, index in folder.classes.index_of.items()} for root, folder in found.folders.items()
    }
    return Described(annotations, account, found.class_names, folder_names)


def _members(shards: Iterable[Shard]) -> dict[str, list[str]]:
    """List the images of each folder."""
    members: dict[str, list[str]] = defaultdict(list)
    for shard in shards:
        if shard.kind == "folder":
            members[shard.location].extend(map(clean_text, shard.members))
    return members


@dataclass
class _Matched:
    """The images and rows of one file that belong together, in one folder or several."""

    rows: set[str] = field(default_factory=set)
    ways: Counter[str] = field(default_factory=Counter)
    images: int = 0
    without: int = 0
    ambiguous: int = 0
    unmatched: list[str] = field(default_factory=list)

    def add(self, keys: Sequence[str], matching: Matching) -> None:
        """Add the images of one folder."""
        self.rows.update(matching.row_of.values())
        self.ways.update(matching.ways)
        self.images += len(keys)
        self.without += len(keys) - len(matching.row_of)
        self.ambiguous += len(matching.ambiguous)
        missing = (key for key in keys if key not in matching.row_of)
        self.unmatched += [key for key, _ in zip(missing, range(_EXAMPLES), strict=False)]


def _account(data: DataConfig, found: Collected, others: int, seen: Look) -> LabelAccount:
    folders = found.folders
    files = [_given_file(file, found.given, folders, seen) for file in found.given.files]
    for folder in folders.values():
        files += [_local_file(file, folder) for file in folder.annotations.files]
    return LabelAccount(
        files=tuple(files),
        source=_source(data, found.given.classes, folders),
        folders=tuple(dict.fromkeys(folder.classes.why for folder in folders.values() if folder.classes.why)),
        inside=Inside(seen.shards, others, len(seen.keys), seen.labels, seen.boxes, seen.wrong, seen.blind)
        if others
        else None,
    )


def _ignored(shards: Iterable[Shard], account: LabelAccount) -> dict[str, int]:
    """Count the files in the folders of images that are neither images nor files of the account."""
    used: dict[str, set[str]] = defaultdict(set)
    for shard in shards:
        if shard.kind == "folder":
            used[shard.location].update(shard.members)
    kinds: Counter[str] = Counter()
    for root, names in used.items():
        names.update(os.path.relpath(file.path, root) for file in account.files if "://" not in file.path)
        kinds.update(ignored_files(Path(root), names))
    return dict(kinds.most_common())


def _given_file(
    file: AnnotationFile, given: Annotations, folders: Mapping[str, FolderLabels], seen: Look
) -> FileAccount:
    table: Collection[str] = given.labels if file.kind == "labels" else given.boxes
    matched = _Matched()
    for folder in folders.values():
        matchings = folder.labels if file.kind == "labels" else folder.boxes
        matched.add(folder.keys, matchings.get("given", Matching()))
    if seen.keys:
        row_of = given.label_row if file.kind == "labels" else given.box_row
        matched.add(seen.keys, Matching({key: row for key in seen.keys if (row := row_of(key)) is not None}))
    return _file_account(file, table, matched, looked=bool(seen.shards))


def _local_file(file: AnnotationFile, folder: FolderLabels) -> FileAccount:
    of_labels = file.kind == "labels"
    matched = _Matched()
    matched.add(folder.keys, (folder.labels if of_labels else folder.boxes).get("local", Matching()))
    return _file_account(file, folder.annotations.labels if of_labels else folder.annotations.boxes, matched)


def _file_account(
    file: AnnotationFile, table: Collection[str], matched: _Matched, *, looked: bool = False
) -> FileAccount:
    unused = (row for row in table if row not in matched.rows)
    examples = tuple(row for row, _ in zip(unused, range(_EXAMPLES), strict=False))
    return FileAccount(
        file.kind, file.path, file.rows, file.repeated, len(matched.rows), matched.images, matched.without,
        len(table) - len(matched.rows), dict(matched.ways), looked, matched.ambiguous, examples,
        tuple(matched.unmatched[:_EXAMPLES]),
    )  # fmt: skip


def _source(data: DataConfig, table: ClassTable, folders: Mapping[str, FolderLabels]) -> str:
    if data.classes is not None:
        return f"{len(table.names):,} names from {data.classes}"
    named = [folder.classes for folder in folders.values() if folder.classes.names]
    if not named:
        return ""
    own = all(one.names[index] == name for one in named for name, index in one.index_of.items() if one.names)
    return "the folders' own names" if own else "names of ImageNet, by the ids that the folders have"


def check_matches(account: LabelAccount, data: DataConfig) -> None:
    """Refuse a file none of whose rows applies to an image, and missing labels if the run file demands all of them.

    Raises:
        ConfigError: with the names that were compared.
    """
    for file in account.files:
        if file.rows and file.images and not file.matched:
            images = ", ".join(f"'{name}'" for name in file.unmatched_images)
            rows = ", ".join(f"'{name}'" for name in file.unused_rows)
            raise ConfigError.one(
                f"data.{file.kind}",
                f"no row of '{file.path}' matches an image: its rows are called {rows}, the images {images}",
                "write the paths of the images into the file, or base names that only one image has",
            )
    if data.require_labels and account.images > account.labelled:
        raise ConfigError.one(
            "data.require_labels",
            f"{account.images - account.labelled} of {account.images} images have no label",
            "complete the label file, or leave require_labels out",
        )
